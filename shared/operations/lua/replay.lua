#!lua flags=allow-oom
-- Moves one dead letter back to the stream it failed on. Two operators at once: one moves it, the other gets GONE.
--   KEYS  1 dead-letter stream   2 stream   3 open index   4 lru index   5 session.completed   6 session stats
--         7 dead letters by reason   8 dead letters by cause   9 session hash, if any
--   ARGV  1 dead letter id   2 session id or ''   3 session ttl (ms)   4 the same in flight (ms)   5 most pairs
--   ->    {'OK', new entry id} | {'GONE'} | {'TOO_MANY', pairs} | {'UNREADABLE'}
local e = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])
if #e == 0 then return { 'GONE' } end
local f = {}
for i = 1, #e[1][2], 2 do f[e[1][2][i]] = e[1][2][i + 1] end
local readable, flat = pcall(cmsgpack.unpack, f.raw or '')
if not readable or type(flat) ~= 'table' or #flat == 0 then return { 'UNREADABLE' } end
if #flat / 2 > tonumber(ARGV[5]) then return { 'TOO_MANY', tostring(#flat / 2) } end
flat[#flat + 1] = 'ernireplay'
flat[#flat + 1] = ((tonumber(f.replays) or 0) + 1) .. ' ' .. (f.traceparent or '')
local id = redis.call('XADD', KEYS[2], '*', unpack(flat)) -- an error ends the script before the removal
redis.call('XDEL', KEYS[1], ARGV[1])
pcall(redis.call, 'HINCRBY', KEYS[7], f.reason or 'unknown', -1)
pcall(cause_gone, KEYS[8], ARGV[1], f.fingerprint or '')
if ARGV[2] ~= '' then
  local k = { hash = KEYS[9], open = KEYS[3], lru = KEYS[4], completed = KEYS[5], stats = KEYS[6] }
  pcall(session_move, k, ARGV[2], { dead = -1 }, false, 0, session_now(), tonumber(ARGV[3]), tonumber(ARGV[4]))
end
return { 'OK', id }
