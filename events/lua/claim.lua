#!lua flags=allow-oom
-- Marks an entry that came without the publish script, once for its source and id. allow-oom: a full server still drains.
--   KEYS  1 marker of the event's source and id   of an event with a session also 2 which event was the session's first
--         one, and 3 the source that may follow the session over HTTP
--   ARGV  1 entry id   2 fingerprint of the content   3 fingerprint of the bytes   4 window (ms)   5 the event's source
--         6 how long the first event is noted (ms)
--   ->    'FIRST': the event is this entry's   'TWICE': another entry has this content   'REUSED': another content
-- Nobody could note the first event of a session when this entry was written. Whoever published into the session later
-- has no right to it.
local function ms_and_number(id)
  local ms, number = string.match(id, '^(%d+)-?(%d*)')
  return tonumber(ms) or 0, tonumber(number) or 0
end

local function is_before(one, other)
  local ms, number = ms_and_number(one)
  local other_ms, other_number = ms_and_number(other)
  return ms < other_ms or (ms == other_ms and number < other_number)
end

local function note_first(first, owner)
  local noted = redis.pcall('GET', first)
  local id, source = string.match(type(noted) == 'string' and noted or '', '^(%S+) (.*)$')
  if id and not is_before(ARGV[1], id) then return end
  redis.call('SET', first, ARGV[1] .. ' ' .. ARGV[5], 'PX', ARGV[6])
  if source and source ~= ARGV[5] and redis.pcall('GET', owner) == source then redis.call('DEL', owner) end
end

local seen = redis.call('GET', KEYS[1])
if not seen then
  if KEYS[2] then note_first(KEYS[2], KEYS[3]) end
  redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[2], 'PX', ARGV[4])
  return 'FIRST'
end
local id, once = seen:match('^(%S+) ?(.*)$')
if id == ARGV[1] then return 'FIRST' end
return (once == ARGV[2] or once == ARGV[3]) and 'TWICE' or 'REUSED'
