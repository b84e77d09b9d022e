#!lua flags=no-writes
-- A page of dead letters without their raw entries, which may be large and are not needed to list dead letters.
--   KEYS  1 dead-letter stream
--   ARGV  1 where to start, as for XRANGE   2 most dead letters
--   ->    {{id, {field, value…}}…}
local LARGE = 1000000 -- bytes
local most, page, start, at_once = tonumber(ARGV[2]), {}, ARGV[1], 1
while #page < most do
  -- few at a time where they are large: a page of large ones would be in memory at once
  local count = math.min(at_once, most - #page)
  local found, bytes = redis.call('XRANGE', KEYS[1], start, '+', 'COUNT', count), 0
  for _, e in ipairs(found) do
    local fields, n = {}, 0
    local f = e[2]
    for k = 1, #f, 2 do
      if f[k] == 'raw' then
        bytes = bytes + #f[k + 1]
      else
        fields[n + 1], fields[n + 2] = f[k], f[k + 1]
        n = n + 2
      end
    end
    page[#page + 1] = { e[1], fields }
  end
  if #found < count then break end
  start = '(' .. found[#found][1]
  at_once = bytes * 2 > LARGE and math.max(1, math.floor(at_once / 2)) or at_once * 2
end
return page
