#!lua flags=allow-oom
-- Switches an endpoint on for the agents and the notifier, as if it had never failed. One that was removed meanwhile stays
-- removed.
--   KEYS  1 hash of the endpoint   2 index of the endpoints
--   ARGV  1 id of the endpoint   2 what the index says of it
--   ->    1, or 0 if it was removed
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HDEL', KEYS[1], 'off_since', 'off_reason', 'failing_since', 'error')
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
return 1
