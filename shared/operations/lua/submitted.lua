#!lua flags=allow-oom
-- Notes that photos were published over HTTP: by whom, before the first agent has seen them.
--   KEYS  1 2 3 4 5… of each photo its record, and of its session the owner, which event was the first one, the hash and
--         the photos (the record if it has none)
--   ARGV  1 how long a record stays (ms; 0: no records)   2 the same of an owner   3 the source   4… of each photo the
--         note (JSON), its session or '', its file name or '', its trace id or '' if this is a repetition, and when its
--         entry was published (ms, server)
--   ->    of each photo the note of its record, which is the one of the first event; its own where the photo belongs to
--         somebody else
-- The first one stays: another source that names a photo or a session does not take it over, also where the first one came
-- without HTTP and nothing was noted. An agent may have been faster than this script, so that what is there may be by the
-- very event: a session that began after its entry, a record with nothing but its trace.
local other = { submitted = true, session = true, file_name = true, unknown_fields = true }

local function is_free(record, trace)
  local all = redis.call('HGETALL', record)
  if #all == 0 then return true end
  local parts = 0
  for i = 1, #all, 2 do
    if all[i] == 'submitted' then return false end
    if not other[all[i]] then
      if trace == '' or not string.find(all[i + 1], '"traceparent":"00-' .. trace .. '-', 1, true) then return false end
      parts = parts + 1
    end
  end
  return parts > 0
end

-- The publish noted the first event at once, this script comes later. Where nothing is noted, an older script published.
local function is_first(first, source)
  local noted = redis.pcall('GET', first)
  return type(noted) ~= 'string' or string.match(noted, '^%S+ (.*)$') == source
end

-- the list of photos outlives the hash, whose session may have begun again
local function began_before(hash, photos, published)
  local created = redis.pcall('HGET', hash, 'created_at')
  if type(created) == 'string' and (tonumber(created) or 0) < published then return true end
  local first = redis.pcall('ZRANGE', photos, 0, 0, 'WITHSCORES')
  return first[2] ~= nil and tonumber(first[2]) < published
end

local reply = {}
for i = 1, #KEYS, 5 do
  local record, owner, first, hash, photos = unpack(KEYS, i, i + 4)
  -- five words of each photo, too
  local at = i + 3
  local note, session, name, trace, published = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], tonumber(ARGV[at + 4])
  if ARGV[1] ~= '0' then
    if is_free(record, trace) then
      redis.call('HSET', record, 'submitted', note)
      if session ~= '' then redis.call('HSETNX', record, 'session', session) end
      if name ~= '' then redis.call('HSETNX', record, 'file_name', name) end
      if redis.call('PTTL', record) < 0 then redis.call('PEXPIRE', record, ARGV[1]) end
    end
    note = redis.call('HGET', record, 'submitted') or note
  end
  if owner ~= record then
    if redis.call('EXISTS', owner) == 0 and is_first(first, ARGV[3]) and not began_before(hash, photos, published) then
      redis.call('SET', owner, ARGV[3])
    end
    redis.call('PEXPIRE', owner, ARGV[2])
  end
  reply[#reply + 1] = note
end
return reply
