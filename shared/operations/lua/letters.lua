#!lua flags=no-writes
-- A page of dead letters without their raw entries, which may be large and are not needed to list dead letters. It is
-- packed, since one string costs the server and the client far less than one for each field.
--   KEYS  1 dead-letter stream
--   ARGV  1 where to start, as for XRANGE   2 most dead letters   3… names of the fields
--   ->    packed {{id, value of each field, or nil where there is none}…}
local LARGE = 1000000 -- bytes
local place, none = {}, {}
for i = 3, #ARGV do
  place[ARGV[i]] = i - 1
  none[i - 2] = cjson.null
end
local most, page, start, at_once = tonumber(ARGV[2]), {}, ARGV[1], 1
while #page < most do
  -- few at a time where they are large: a page of large ones would be in memory at once
  local count = math.min(at_once, most - #page)
  local found, bytes = redis.call('XRANGE', KEYS[1], start, '+', 'COUNT', count), 0
  for _, e in ipairs(found) do
    local letter = { e[1], unpack(none) }
    local f = e[2]
    for k = 1, #f, 2 do
      local at = place[f[k]]
      if at then
        letter[at] = f[k + 1]
      elseif f[k] == 'raw' then
        bytes = bytes + #f[k + 1]
      end
    end
    page[#page + 1] = letter
  end
  if #found < count then break end
  start = '(' .. found[#found][1]
  at_once = bytes * 2 > LARGE and math.max(1, math.floor(at_once / 2)) or at_once * 2
end
return cmsgpack.pack(page)
