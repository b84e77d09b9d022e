#!lua
-- Set money aside for a call that is about to be made, if the budgets have it.
--   KEYS  1 spent today   2 spent on the session (only if the photo has one)
--   ARGV  1 amount   2 limit per day   3 limit per session   4 ms the first key lives   5 ms the second lives
--         (amounts in millionths; a limit of 0 is none)
--   ->    0 set aside, 1 the day's budget is spent, 2 the session's is
local amount = tonumber(ARGV[1])
for i = 1, #KEYS do
  local limit = tonumber(ARGV[1 + i])
  if limit > 0 and tonumber(redis.call('GET', KEYS[i]) or 0) + amount > limit then
    return i
  end
end
for i = 1, #KEYS do
  redis.call('INCRBY', KEYS[i], ARGV[1])
  redis.call('PEXPIRE', KEYS[i], ARGV[3 + i])
end
return 0
