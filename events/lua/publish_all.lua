#!lua
-- Publishes events of one source into one lane, all of them or none, each once within the window.
--   KEYS  1 stream   2 counter of refusals   3… the marker of each event
--   ARGV  1 window (ms)   2 limit of entries in the stream   3 1: publish nothing, only report what would happen
--         4… for each event: number of its words, then its fields, name and value in turn. The first field is
--         `ernionce`, the fingerprint of the content; the last one is `data`.
--   ->    {'OK', entry id, 1 fresh | 0 published before, …}, only {'OK'} if nothing was to be published
--         {'REUSED', number of the event (from 1), entry id of the other content, …}   {'FULL', entries}
-- The markers are those of publish.lua. An event that comes twice in the list is published once.
local once, first, last, seen, reused, fresh = {}, {}, {}, {}, {}, 0
local at = 4
for i = 3, #KEYS do
  first[i], last[i] = at + 1, at + tonumber(ARGV[at])
  once[i] = ARGV[at + 2]
  at = last[i] + 1
  local marker = seen[KEYS[i]]
  if marker == nil then
    marker = redis.call('GET', KEYS[i])
    seen[KEYS[i]] = marker
    if not marker then fresh = fresh + 1 end
  end
  if marker then
    local id, of = marker:match('^(%S+) ?(.*)$')
    if of ~= '' and of ~= once[i] and of ~= 'sha1:' .. redis.sha1hex(ARGV[last[i]]) then
      reused[#reused + 1] = tostring(i - 2)
      reused[#reused + 1] = id
    end
  end
end
if #reused > 0 then return { 'REUSED', unpack(reused) } end
local backlog = redis.call('XLEN', KEYS[1])
if fresh > 0 and backlog + fresh > tonumber(ARGV[2]) then
  redis.call('INCR', KEYS[2])
  return { 'FULL', tostring(backlog) }
end
local reply = { 'OK' }
if ARGV[3] == '1' then return reply end
for i = 3, #KEYS do
  local marker, new = seen[KEYS[i]], 0
  if not marker then
    local id = redis.call('XADD', KEYS[1], '*', unpack(ARGV, first[i], last[i]))
    marker, new = id .. ' ' .. once[i], 1
    redis.call('SET', KEYS[i], marker, 'PX', ARGV[1])
    seen[KEYS[i]] = marker
  end
  reply[#reply + 1] = marker:match('^(%S+)')
  reply[#reply + 1] = new
end
return reply
