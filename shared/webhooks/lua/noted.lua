#!lua flags=allow-oom
-- Notes how a delivery to an endpoint went, and switches the endpoint off where it failed for too long. One that was removed
-- meanwhile stays removed.
--   KEYS  1 hash of the endpoint   2 index of the endpoints
--   ARGV  1 id of the endpoint   2 the failure in a sentence, '' if it was delivered   3 seconds of failures after which it
--         is switched off (0: at once)   4 why it is then off, in a sentence
--   ->    1 if this failure switched it off, else 0
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local t = redis.call('TIME')
local now = string.format('%d.%03d', t[1], math.floor(t[2] / 1000))
if ARGV[2] == '' then
  redis.call('HSET', KEYS[1], 'delivered_at', now)
  redis.call('HDEL', KEYS[1], 'failing_since', 'error')
  return 0
end
redis.call('HSETNX', KEYS[1], 'failing_since', now)
redis.call('HSET', KEYS[1], 'error', ARGV[2])
local since = tonumber(redis.call('HGET', KEYS[1], 'failing_since')) or 0
if tonumber(now) - since < tonumber(ARGV[3]) then return 0 end
-- one that is off already keeps the reason it has
if redis.call('HSETNX', KEYS[1], 'off_since', now) == 0 then return 0 end
redis.call('HSET', KEYS[1], 'off_reason', ARGV[4])
redis.call('HSET', KEYS[2], ARGV[1], '')
return 1
