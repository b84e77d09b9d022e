#!lua flags=allow-oom
-- Moves one discarded dead letter back; it gets a new id, because ids of a stream only grow.
--   KEYS  1 archive   2 dead-letter stream   3 dead letters by reason   4 progress, if any
--   ARGV  1 id in the archive   2 cursor of the agent in the progress, or ''
--         3 where the caller left that cursor, or ''
--   ->    its new id, or '' if it was gone already, or 'EDITED': the photo is on its way again with another event,
--         or 'OVERTAKEN': another process has gone on with the operation
if ARGV[2] ~= '' and overtaken(KEYS[4], ARGV[2], ARGV[3]) then return 'OVERTAKEN' end
local e = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
if not e then return '' end
local reason, kept = 'unknown', {}
for i = 1, #e[2], 2 do
  local name = e[2][i]
  if name == 'edited_as' then return 'EDITED' end
  if name == 'reason' then reason = e[2][i + 1] end
  if name ~= 'discarded_by' and name ~= 'dead_id' then
    kept[#kept + 1] = name
    kept[#kept + 1] = e[2][i + 1]
  end
end
local id = redis.call('XADD', KEYS[2], '*', unpack(kept))
redis.call('XDEL', KEYS[1], ARGV[1])
pcall(redis.call, 'HINCRBY', KEYS[3], reason, 1)
if ARGV[2] ~= '' then pcall(counted, KEYS[4], 'done', ARGV[2], ARGV[1]) end
return id
