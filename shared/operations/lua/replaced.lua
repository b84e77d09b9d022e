#!lua flags=allow-oom
-- Replaces a field's value once for the value that the caller has read: of two people who change it at once, one is refused.
--   KEYS  1 hash
--   ARGV  1 field   2 the value that was read   3 the new one
--   ->    1, or 0 if it has another value, or was removed
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
