#!lua
-- Creates a session, or adds to what is known of it. The first `expected` counts until a close sets another.
--   KEYS  1 session hash   2 open index   3 lru index   4 session.completed   5 session stats
--   ARGV  1 session id   2 expected (0: not known)   3 site   4 library   5 ttl (ms)   6 ttl while in flight (ms)
--         7 traceparent of the publisher, or ''   8 '1' to close it: `expected` counts, whatever was set before
--   ->    the `expected` that counts; 0 too if a foreign value stands in the session's place (the first hand-off of one of
--         its photos puts a session there: publishers have no right to delete)
local k = { hash = KEYS[1], open = KEYS[2], lru = KEYS[3], completed = KEYS[4], stats = KEYS[5] }
local id, now = ARGV[1], session_now()
local state, s = session_load(k, id)
if state == 'corrupt' then
  session_tell(k, 'corrupt')
  return 0
end
if state == 'none' then s = session_create(k, id, now, state) end
local expected = tonumber(ARGV[2])
if expected > 0 and (s.expected == 0 or ARGV[8] == '1') then
  s.expected = expected
  redis.call('HSET', k.hash, 'expected', expected)
end
for i, field in ipairs({ 'site', 'library' }) do
  if ARGV[2 + i] ~= '' then redis.call('HSETNX', k.hash, field, ARGV[2 + i]) end
end
if ARGV[7] ~= '' then redis.call('HSETNX', k.hash, 'traceparent', ARGV[7]) end
redis.call('HSET', k.hash, 'last_accessed', now)
session_file(k, id, s, now, tonumber(ARGV[5]), tonumber(ARGV[6]))
session_complete(k, id, now, s)
return s.expected
