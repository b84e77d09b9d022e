#!lua flags=no-writes
-- Counts the dead letters of a page by their reasons, here, so that the entries they hold need not travel.
--   KEYS  1 dead-letter stream
--   ARGV  1 first id, or '(' and the last id of the page before   2 most dead letters
--   ->    {last id seen or '', {reason, count, …}}
local counts, order, last = {}, {}, ''
for _, e in ipairs(redis.call('XRANGE', KEYS[1], ARGV[1], '+', 'COUNT', ARGV[2])) do
  last = e[1]
  local reason = 'unknown'
  -- `raw` comes first and is long; the names after it are few
  for i = 3, #e[2], 2 do
    if e[2][i] == 'reason' then
      reason = e[2][i + 1]
      break
    end
  end
  if not counts[reason] then order[#order + 1] = reason end
  counts[reason] = (counts[reason] or 0) + 1
end
local flat = {}
for _, reason in ipairs(order) do
  flat[#flat + 1] = reason
  flat[#flat + 1] = counts[reason]
end
return { last, flat }
