-- Counts one dead letter of an operation, in the step that acts on it, so that a crash counts none twice.
--   key: the operation's progress in this lane   what: done, gone or refused   place: cursor of the agent
--   id: of the letter
local function counted(key, what, place, id)
  redis.call('HINCRBY', key, what, 1)
  redis.call('HSET', key, place, id)
end
-- Says whether another process has gone on with the operation: then the cursor is not where the caller left it.
local function overtaken(key, place, before)
  return (redis.call('HGET', key, place) or '') ~= before
end
