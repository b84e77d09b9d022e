#!lua flags=allow-oom
-- Deletes one discarded dead letter for good.
--   KEYS  1 archive   2 progress, if any
--   ARGV  1 id in the archive   2 cursor of the agent in the progress, or ''   3 where the caller left that cursor, or ''
--   ->    1, or 0 if it was gone already, or -1 if another process has gone on with the operation
if ARGV[2] ~= '' and overtaken(KEYS[2], ARGV[2], ARGV[3]) then return -1 end
if redis.call('XDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
if ARGV[2] ~= '' then pcall(counted, KEYS[2], 'done', ARGV[2], ARGV[1]) end
return 1
