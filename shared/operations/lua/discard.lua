#!lua flags=allow-oom
-- Moves one dead letter into the archive, or deletes it, and counts it no more.
--   KEYS  1 dead-letter stream   2 dead letters by reason   3 dead letters by cause   4 archive   5 progress, if any
--   ARGV  1 dead letter id   2 who discards it, or '' to delete it   3 cursor of the agent in the progress, or ''
--         4 where the caller left that cursor, or ''
--   ->    1, or 0 if it was gone already, or -1 if another process has gone on with the operation
if ARGV[3] ~= '' and overtaken(KEYS[5], ARGV[3], ARGV[4]) then return -1 end
local MOST = 7000 -- words one XADD takes from a script
local e = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
if not e then return 0 end
local reason, fingerprint, kept = 'unknown', '', {}
for i = 1, #e[2], 2 do
  if e[2][i] == 'reason' then reason = e[2][i + 1] end
  if e[2][i] == 'fingerprint' then fingerprint = e[2][i + 1] end
  kept[i], kept[i + 1] = e[2][i], e[2][i + 1]
end
if ARGV[2] ~= '' and #kept < MOST then
  for _, word in ipairs({ 'discarded_by', ARGV[2], 'dead_id', ARGV[1] }) do kept[#kept + 1] = word end
  redis.call('XADD', KEYS[4], '*', unpack(kept)) -- an error ends the script before the removal
end
redis.call('XDEL', KEYS[1], ARGV[1])
pcall(redis.call, 'HINCRBY', KEYS[2], reason, -1)
pcall(cause_gone, KEYS[3], ARGV[1], fingerprint)
if ARGV[3] ~= '' then pcall(counted, KEYS[5], 'done', ARGV[3], ARGV[1]) end
return 1
