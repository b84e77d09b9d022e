#!lua
-- Creates a session or writes what is said of it; what was written while Redis was away is merged: the later access
-- wins, access counts add. Progress counters are not written here.
--   KEYS  1 session hash   2 its photos   3 open index   4 lru index   5 session stats
--   ARGV  1 session id   2 ttl (ms)   3 the same in flight (ms)   4 created (ms, 0: now)   5 accessed (ms, 0: now)
--         6 accesses to add   7… field, value, … (site, library; expected only if none is known yet)
--   ->    {'created' | 'updated', what stood there before: 'sound' | 'none' | 'expired' | 'corrupt', fields (flat),
--          sessions with photos in flight, other sessions}
local k = { hash = KEYS[1], photos = KEYS[2], open = KEYS[3], lru = KEYS[4], stats = KEYS[5] }
local id, ttl, long_ttl = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local now = session_now()
local accessed = tonumber(ARGV[5])
if accessed == 0 or accessed > now then accessed = now end
local before, s = session_load(k, id)
if before == 'sound' and session_late(k, id, s, now, ttl, long_ttl) then
  before = 'expired'
  session_remove(k, id)
end
if before ~= 'sound' then
  if before ~= 'none' then session_tell(k, before) end
  s = session_create(k, id, accessed, before)
  local created = tonumber(ARGV[4])
  if created > 0 and created < now then redis.call('HSET', k.hash, 'created_at', created) end
end
local newer = accessed >= s.last_accessed
for i = 7, #ARGV, 2 do
  local field, value = ARGV[i], ARGV[i + 1]
  if field == 'expected' then
    if s.expected == 0 then
      s.expected = tonumber(value)
      redis.call('HSET', k.hash, field, value)
    end
  elseif newer or redis.call('HEXISTS', k.hash, field) == 0 then
    redis.call('HSET', k.hash, field, value)
  end
end
local last = math.max(accessed, s.last_accessed)
redis.call('HSET', k.hash, 'access_count', s.access_count + tonumber(ARGV[6]), 'last_accessed', last)
session_file(k, id, s, last, ttl, long_ttl)
return { before == 'sound' and 'updated' or 'created', before, redis.call('HGETALL', k.hash),
  redis.call('ZCARD', k.open), redis.call('ZCARD', k.lru) }
