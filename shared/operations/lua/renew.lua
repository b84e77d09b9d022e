#!lua flags=allow-oom
-- Renews a lease for whoever holds it.
--   KEYS  1 lease   ARGV  1 token of the holder   2 milliseconds
--   ->    1, or 0 if somebody else holds it, or nobody
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
