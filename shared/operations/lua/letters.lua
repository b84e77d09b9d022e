#!lua flags=no-writes
-- A page of dead letters without their raw entries, which may be large and are not needed to list dead letters.
--   KEYS  1 dead-letter stream
--   ARGV  1 where to start, as for XRANGE   2 most dead letters
--   ->    {{id, {field, value…}}…}
local page, start = {}, ARGV[1]
for i = 1, tonumber(ARGV[2]) do
  -- one at a time: a page of large ones would be in memory at once
  local e = redis.call('XRANGE', KEYS[1], start, '+', 'COUNT', 1)[1]
  if not e then break end
  local fields = {}
  for k = 1, #e[2], 2 do
    if e[2][k] ~= 'raw' then
      fields[#fields + 1] = e[2][k]
      fields[#fields + 1] = e[2][k + 1]
    end
  end
  page[i] = { e[1], fields }
  start = '(' .. e[1]
end
return page
