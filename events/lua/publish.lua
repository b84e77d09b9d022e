#!lua
-- Publishes an event once within the window. No allow-oom flag: a full server refuses intake, and drains.
--   KEYS  1 stream   2 published marker of the event id   3 counter of refusals
--   ARGV  1 window (ms)   2 most entries the stream may have   3… fields, name and value in turn
--   ->    {'OK', entry id, 1 fresh | 0 seen before}  or  {'FULL', entries, 0}
local seen = redis.call('GET', KEYS[2])
if seen then return { 'OK', seen, 0 } end
local backlog = redis.call('XLEN', KEYS[1])
if backlog >= tonumber(ARGV[2]) then
  redis.call('INCR', KEYS[3])
  return { 'FULL', tostring(backlog), 0 }
end
local id = redis.call('XADD', KEYS[1], '*', unpack(ARGV, 3))
redis.call('SET', KEYS[2], id, 'PX', ARGV[1])
return { 'OK', id, 1 }
