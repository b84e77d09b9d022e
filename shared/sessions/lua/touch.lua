#!lua flags=allow-oom
-- Reads a session and notes the access. One past its time is removed and counts as absent.
--   KEYS  1 session hash   2 its photos   3 open index   4 lru index   5 session stats
--   ARGV  1 session id   2 ttl (ms)   3 ttl while in flight or dead letters wait (ms)   4 '1': note the access
--   ->    {fields (flat), 'hit' | 'none' | 'expired' | 'corrupt'}
local k = { hash = KEYS[1], photos = KEYS[2], open = KEYS[3], lru = KEYS[4], stats = KEYS[5] }
local id, ttl, long_ttl, noted = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1'
local now = session_now()
local state, s = session_load(k, id)
if state == 'sound' and session_late(k, id, s, now, ttl, long_ttl) then
  state = 'expired'
  session_remove(k, id)
end
if state ~= 'sound' then
  if state ~= 'none' then session_tell(k, state) end
  if noted then
    session_tell(k, 'misses')
    -- what the backstop took leaves its member behind
    session_index('ZREM', k.open, id)
    session_index('ZREM', k.lru, id)
  end
  return { {}, state }
end
if noted then
  redis.call('HSET', k.hash, 'access_count', s.access_count + 1, 'last_accessed', now)
  session_file(k, id, s, now, ttl, long_ttl)
  session_tell(k, 'hits')
end
return { redis.call('HGETALL', k.hash), 'hit' }
