#!lua flags=no-writes
-- How many dead letters there are, the newest of them, and the causes that were counted; all at the same moment.
--   KEYS  1 dead-letter stream   2 causes
--   ->    {dead letters, id of the newest or '', {field, value, …}}
local causes = redis.pcall('HGETALL', KEYS[2])
local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
return { redis.call('XLEN', KEYS[1]), newest and newest[1] or '', causes.err and {} or causes }
