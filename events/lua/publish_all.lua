#!lua
-- Publishes events of one source into one lane, all of them or none, each once within the window.
--   KEYS  1 stream   2 counter of refusals   3 stream with the bulk work   4… the marker of each event, then in any order: counters
--         of the photos that the source published into a session; of each session which event was its first one
--   ARGV  1 window (ms)   2 limit of entries in the streams   3 1: publish nothing, only report what would happen
--         4 number of events   5 their source   6… for each event: 'bulk', or the place of its session's counter among KEYS
--         (0: not counted); the place of its session's first event among KEYS (0: it has no session); number of its words;
--         its fields, name and value in turn. The first field is `ernionce`, the fingerprint of the content; the last one
--         is `data`.
--   ->    {'OK', entry id, 1 fresh | 0 published before, …}, only {'OK'} if nothing was to be published
--         {'REUSED', number of the event (from 1), entry id of the other content, …}   {'FULL', entries}
-- The markers are those of publish.lua. An event that comes twice in the list is published once.
-- As in publish.lua.
local AHEAD, PAUSE, FIRST = 50, 600000, 604800000
local once, first, last, seen, reused, fresh = {}, {}, {}, {}, {}, 0
local at, final = 6, 3 + tonumber(ARGV[4])
for i = 4, final do
  first[i], last[i] = at + 3, at + 2 + tonumber(ARGV[at + 2])
  once[i] = ARGV[at + 4]
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
      reused[#reused + 1] = tostring(i - 3)
      reused[#reused + 1] = id
    end
  end
end
if #reused > 0 then return { 'REUSED', unpack(reused) } end
local backlog = redis.call('XLEN', KEYS[1]) + redis.call('XLEN', KEYS[3])
if fresh > 0 and backlog + fresh > tonumber(ARGV[2]) then
  redis.call('INCR', KEYS[2])
  return { 'FULL', tostring(backlog) }
end
local reply = { 'OK' }
if ARGV[3] == '1' then return reply end
local sent, begun = {}, {}
local function is_bulk(word)
  local place = tonumber(word)
  if not place or place == 0 then return word == 'bulk' end
  sent[place] = (sent[place] or tonumber(redis.pcall('GET', KEYS[place]) or 0) or 0) + 1
  return sent[place] > AHEAD
end
for i = 4, final do
  local marker, new = seen[KEYS[i]], 0
  if not marker then
    local to = is_bulk(ARGV[first[i] - 3]) and KEYS[3] or KEYS[1]
    local id = redis.call('XADD', to, '*', unpack(ARGV, first[i], last[i]))
    marker, new = id .. ' ' .. once[i], 1
    redis.call('SET', KEYS[i], marker, 'PX', ARGV[1])
    seen[KEYS[i]] = marker
    local session = tonumber(ARGV[first[i] - 2])
    if session > 0 and not begun[session] then
      begun[session] = true
      redis.call('SET', KEYS[session], id .. ' ' .. ARGV[5], 'NX', 'PX', FIRST)
    end
  end
  reply[#reply + 1] = marker:match('^(%S+)')
  reply[#reply + 1] = new
end
for place, count in pairs(sent) do redis.call('SET', KEYS[place], count, 'PX', PAUSE) end
return reply
