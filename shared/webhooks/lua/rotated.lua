#!lua
-- Gives an endpoint a new secret, once for the secret it has: of two people who rotate at once, one is refused, and the
-- secret that each of them saw is one that signs.
--   KEYS  1 hash of the endpoint
--   ARGV  1 the secret that it has   2 the new one   3 the one that signs, too   4 until when (Unix seconds)
--   ->    1, or 0 if it has another secret, or was removed
if redis.call('HGET', KEYS[1], 'secret') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'secret', ARGV[2], 'old_secret', ARGV[3], 'old_until', ARGV[4])
return 1
