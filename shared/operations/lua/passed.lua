#!lua flags=allow-oom
-- Counts one dead letter that an operation did not act on.
--   KEYS  1 progress
--   ARGV  1 gone or refused   2 cursor of the agent   3 where the caller left it, or ''   4 id of the letter
--         5 most sentences that are kept   6 why it was refused, or ''
--   ->    1, or 0 if another process has gone on with the operation: then nothing is counted
if overtaken(KEYS[1], ARGV[2], ARGV[3]) then return 0 end
counted(KEYS[1], ARGV[1], ARGV[2], ARGV[4])
if ARGV[6] ~= '' and tonumber(redis.call('HGET', KEYS[1], ARGV[1])) <= tonumber(ARGV[5]) then
  redis.call('HSET', KEYS[1], 'refusal:' .. ARGV[4], ARGV[6])
end
return 1
