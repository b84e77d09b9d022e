#!lua
-- Publishes an event once within the window. No allow-oom flag: a full server refuses intake, and drains.
--   KEYS  1 stream   2 marker of the event's source and id   3 counter of refusals
--         4 stream with the bulk work, where this one may go   5 counter of the photos that its source published into its
--         session: this one is bulk work if there are many; without it, or if it is KEYS[4], it is bulk work in any case
--         6 which event was the first one of the session: noted if none is
--   ARGV  1 window (ms)   2 limit of entries in these streams   3… fields, name and value in turn
--   ->    {'OK', entry id, 1 fresh | 0 published before}   {'REUSED', entry id of the other content, 0}
--         {'FULL', entries, 0}
-- The marker is `<entry id> <fingerprint>`. The field `ernionce` holds the fingerprint of the content; without it the
-- script adds the SHA-1 of `data`. A marker without fingerprint is one of an older script: its content is not compared.
-- AHEAD: photos of a session, by one source, that are no bulk work. A session of a few photos need not wait for one of
-- thousands. PAUSE (ms): after a pause of this length, they are counted from the beginning.
-- FIRST (ms): how long the first event of a session is noted, as long as a session may be in flight.
local AHEAD, PAUSE, FIRST = 50, 600000, 604800000
local fields, once, data, source = { unpack(ARGV, 3) }, nil, '', ''
for i = 1, #fields, 2 do
  local name = fields[i]
  if name == 'ernionce' then once = fields[i + 1]
  elseif name == 'data' then data = fields[i + 1]
  elseif name == 'source' then source = fields[i + 1] end
end
if not once then
  once = 'sha1:' .. redis.sha1hex(data)
  fields[#fields + 1] = 'ernionce'
  fields[#fields + 1] = once
end
local seen = redis.call('GET', KEYS[2])
if seen then
  local id, of = seen:match('^(%S+) ?(.*)$')
  local same = of == '' or of == once or of == 'sha1:' .. redis.sha1hex(data)
  return { same and 'OK' or 'REUSED', id, 0 }
end
local backlog = redis.call('XLEN', KEYS[1]) + (KEYS[4] and redis.call('XLEN', KEYS[4]) or 0)
if backlog >= tonumber(ARGV[2]) then
  redis.call('INCR', KEYS[3])
  return { 'FULL', tostring(backlog), 0 }
end
local to, first = KEYS[4] or KEYS[1], KEYS[6]
if KEYS[5] and KEYS[5] ~= KEYS[4] then
  local sent = (tonumber(redis.pcall('GET', KEYS[5]) or 0) or 0) + 1
  redis.call('SET', KEYS[5], sent, 'PX', PAUSE)
  if sent <= AHEAD then to = KEYS[1] end
  -- the source's first photo of these noted it
  if sent > 1 then first = nil end
end
local id = redis.call('XADD', to, '*', unpack(fields))
redis.call('SET', KEYS[2], id .. ' ' .. once, 'PX', ARGV[1])
if first then redis.call('SET', first, id .. ' ' .. source, 'NX', 'PX', FIRST) end
return { 'OK', id, 1 }
