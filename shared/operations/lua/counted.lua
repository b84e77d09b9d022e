#!lua flags=no-writes
-- How many dead letters there are, and how many were counted by reason; both at the same moment.
--   KEYS  1 dead-letter stream   2 dead letters by reason
--   ->    {dead letters, {reason, count, …}}
local counts = redis.pcall('HGETALL', KEYS[2])
return { redis.call('XLEN', KEYS[1]), counts.err and {} or counts }
