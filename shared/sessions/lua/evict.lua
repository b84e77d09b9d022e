#!lua flags=allow-oom
-- Removes sessions, hash and member together: the least recently used finished ones while there are too many, and those
-- past their time. The candidates were read before; each is looked at again here, with its keys declared.
--   KEYS  1 open index   2 lru index   3 session stats   4… per candidate: session hash, its photos
--   ARGV  1 most sessions in all   2 ttl (ms)   3 ttl while in flight or dead letters wait (ms)   4… per candidate, least
--         recently used first: id, score
--   ->    {evicted, expired}
local now, most, ttl, long_ttl = session_now(), tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local evicted, expired = 0, 0
local all = redis.call('ZCARD', KEYS[1]) + redis.call('ZCARD', KEYS[2])
for i = 4, #ARGV, 2 do
  local id, score = ARGV[i], ARGV[i + 1]
  local k = { hash = KEYS[i], photos = KEYS[i + 1], open = KEYS[1], lru = KEYS[2], stats = KEYS[3] }
  local finished = redis.call('ZSCORE', k.lru, id) == score
  -- another score: it was used since
  if finished or redis.call('ZSCORE', k.open, id) == score then
    local state, s = session_load(k, id)
    local life = ttl
    if not finished or (state == 'sound' and s.dead > 0) then life = long_ttl end
    local late = tonumber(score) < now - life
    if late or (finished and all > most) then
      session_remove(k, id)
      all = all - 1
      if late then expired = expired + 1 else evicted = evicted + 1 end
      session_tell(k, late and 'expired' or 'evicted')
    end
  end
end
return { evicted, expired }
