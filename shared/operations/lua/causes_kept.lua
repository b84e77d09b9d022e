#!lua flags=allow-oom
-- Keeps the causes of all dead letters up to an id, if they are right at this moment.
--   KEYS  1 dead-letter stream   2 causes
--   ARGV  1 the last id that was counted   2… fingerprint, 'count id id id' (the newest, oldest first), …
--   ->    1, or 0 if a letter went since it was counted, or a thousand came
local MANY = 1000
local newer = #redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', MANY)
local sum = 0
for i = 3, #ARGV, 2 do sum = sum + tonumber(ARGV[i]:match('^%d+')) end
if newer == MANY or redis.call('XLEN', KEYS[1]) - newer ~= sum then return 0 end
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[2], 'last', ARGV[1])
for i = 2, #ARGV, 2 do redis.call('HSET', KEYS[2], 'cause:' .. ARGV[i], ARGV[i + 1]) end
return 1
