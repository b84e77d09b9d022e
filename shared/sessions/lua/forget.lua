#!lua flags=allow-oom
-- Removes a session, hash, photos and index members together.
--   KEYS  1 session hash   2 its photos   3 open index   4 lru index
--   ARGV  1 session id   2 only if it was not accessed after this time (ms; 0: whenever)
--   ->    1 if there was one and it is gone, else 0
local k = { hash = KEYS[1], photos = KEYS[2], open = KEYS[3], lru = KEYS[4] }
local state, s = session_load(k, ARGV[1])
local limit = tonumber(ARGV[2])
if state == 'sound' and limit > 0 and s.last_accessed > limit then return 0 end
session_remove(k, ARGV[1])
return state == 'sound' and 1 or 0
