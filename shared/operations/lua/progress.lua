-- Counts one dead letter of an operation, in the step that acts on it, so that a crash counts none twice.
--   key: the operation's progress in this lane   what: done or gone   place: cursor of the agent   id: of the letter
local function counted(key, what, place, id)
  redis.call('HINCRBY', key, what, 1)
  redis.call('HSET', key, place, id)
end
