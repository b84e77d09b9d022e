#!lua flags=allow-oom
-- Puts counts of dead letters in the place of those that were kept, if they are right at this moment.
--   KEYS  1 dead-letter stream   2 dead letters by reason
--   ARGV  1 the last id that was counted, or '0'   2… reason, count, …
--   ->    1, or 0 if a letter came or went since it was counted
local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local sum = 0
for i = 3, #ARGV, 2 do sum = sum + tonumber(ARGV[i]) end
if redis.call('XLEN', KEYS[1]) ~= sum or (newest and newest[1] or '0') ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[2])
for i = 2, #ARGV, 2 do redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
return 1
