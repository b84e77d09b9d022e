#!lua flags=no-writes
-- What `evict` is to look at: the least recently used while there are too many sessions, and those past their time.
--   KEYS  1 open index   2 lru index
--   ARGV  1 most sessions in all   2 ttl (ms)   3 ttl while in flight or dead letters wait (ms)   4 most candidates of a
--         kind   5 how many of the lru sessions past `ttl` were looked at before (they wait with dead letters)
--   ->    {sessions with photos in flight, other sessions, {id, score, … too many}, {id, score, … past `ttl`},
--          {id, score, … in flight and past their time}}
local open, lru = redis.pcall('ZCARD', KEYS[1]), redis.pcall('ZCARD', KEYS[2])
-- an index of another type is empty: the next session that is filed takes its place
if type(open) == 'table' then open = 0 end
if type(lru) == 'table' then lru = 0 end
local t = redis.call('TIME')
local now, n = t[1] * 1000 + math.floor(t[2] / 1000), tonumber(ARGV[4])
local many, late, stuck = {}, {}, {}
local over = math.min(n, lru, open + lru - tonumber(ARGV[1]))
if over > 0 then many = redis.call('ZRANGE', KEYS[2], 0, over - 1, 'WITHSCORES') end
if lru > 0 then
  late = redis.call('ZRANGE', KEYS[2], '-inf', '(' .. string.format('%.0f', now - tonumber(ARGV[2])), 'BYSCORE',
    'LIMIT', ARGV[5], n, 'WITHSCORES')
end
if open > 0 then
  stuck = redis.call('ZRANGE', KEYS[1], '-inf', '(' .. string.format('%.0f', now - tonumber(ARGV[3])), 'BYSCORE',
    'LIMIT', 0, n, 'WITHSCORES')
end
return { open, lru, many, late, stuck }
