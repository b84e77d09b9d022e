-- A part, not a script: what a session is in Redis, how its counters move and how it completes. Put before the scripts
-- that need it. The scripts give its functions `k`, the keys they were given:
--   k.hash, k.open, k.lru, k.stats   the session, the two indexes (score: last access), what became of all sessions
--   k.photos, k.completed            the session's photo ids, the stream session.completed (each where it is needed)
--   k.source                         no key: the source of one of its photos, which the session keeps as its own
--   k.first                          the note of the session's first event, whose source counts more (where it is needed)
--
-- The hash: session_id, created_at, last_accessed (ms, server), access_count, site, library, expected, status (open |
-- completed), completion, received, <agent>…, validated, dead, postponed, traceparent, source. A value that is no session
-- (another type, a field missing, a counter that is no number) counts as absent: whoever creates a session puts one in its
-- place.

-- A key outlives its session by so much: sessions are removed by score, hash and member together; this is the backstop
-- for when nobody sweeps.
local SESSION_BACKSTOP = 600000

local function session_now()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- Counts what became of sessions. A foreign value in its place loses the count, nothing else.
local function session_tell(k, what)
  redis.pcall('HINCRBY', k.stats, what, 1)
end

-- An integer of at most 15 digits, which Lua's numbers hold exactly; 0 if absent, nil if it is something else.
local function session_number(v)
  if not v then return 0 end
  if #v <= 15 and string.find(v, '^%-?%d+$') then return tonumber(v) end
end

local SESSION_NUMBERS = { 'created_at', 'last_accessed', 'access_count', 'expected', 'completion', 'received',
  'validated', 'dead', 'postponed' }

-- 'sound' and the session's numbers (`more`: further counters wanted), or 'none', or 'corrupt'.
local function session_load(k, id, more)
  local names = { 'session_id', 'status', unpack(SESSION_NUMBERS) }
  for _, name in ipairs(more or {}) do names[#names + 1] = name end
  local v = redis.pcall('HMGET', k.hash, unpack(names))
  if v.err then
    if string.find(v.err, 'WRONGTYPE', 1, true) then return 'corrupt' end
    error(v.err)
  end
  if not v[1] then return redis.call('EXISTS', k.hash) == 1 and 'corrupt' or 'none' end
  if v[1] ~= id or not (v[3] and v[4] and v[5]) then return 'corrupt' end
  local s = { status = v[2] }
  for i = 3, #names do
    s[names[i]] = session_number(v[i])
    if not s[names[i]] then return 'corrupt' end
  end
  return 'sound', s
end

-- An index of another type counts as absent, too.
local function session_index(command, index, ...)
  local r = redis.pcall(command, index, ...)
  if type(r) == 'table' and r.err then
    if not string.find(r.err, 'WRONGTYPE', 1, true) then error(r.err) end
    redis.call('DEL', index)
    return command == 'ZADD' and redis.call(command, index, ...)
  end
  return r
end

-- Whether a session is past its time: `ttl` after its last access, `long_ttl` while photos are in flight or dead letters
-- wait.
local function session_late(k, id, s, now, ttl, long_ttl)
  local score = redis.pcall('ZSCORE', k.lru, id)
  local life = s.dead > 0 and long_ttl or ttl
  if type(score) ~= 'string' then
    score = redis.pcall('ZSCORE', k.open, id)
    if type(score) == 'string' then life = long_ttl else score = s.last_accessed end
  end
  return tonumber(score) < now - life
end

-- Hash and member together.
local function session_remove(k, id)
  redis.call('DEL', k.hash, k.photos or k.hash)
  session_index('ZREM', k.open, id)
  session_index('ZREM', k.lru, id)
end

-- Puts a new session at the key, whatever stood there; `state` is what `session_load` said of that.
local function session_create(k, id, now, state)
  if state == 'corrupt' then redis.call('DEL', k.hash) end
  redis.call('HSET', k.hash, 'session_id', id, 'created_at', now, 'last_accessed', now, 'access_count', 0,
    'status', 'open', 'completion', 0)
  session_tell(k, 'created')
  return { status = 'open', created_at = now, last_accessed = now, access_count = 0, expected = 0, completion = 0,
    received = 0, validated = 0, dead = 0, postponed = 0 }
end

-- Where the session stands in the two indexes, and how long its key lives.
local function session_file(k, id, s, accessed, ttl, long_ttl)
  local ended = s.validated + s.dead
  local here, there, life = k.lru, k.open, s.dead > 0 and long_ttl or ttl
  if s.received > ended or s.expected > ended or s.postponed > 0 then
    here, there, life = k.open, k.lru, long_ttl
  end
  -- whoever was here before is not there
  if session_index('ZADD', here, accessed, id) == 1 then session_index('ZREM', there, id) end
  redis.call('PEXPIRE', k.hash, life + SESSION_BACKSTOP)
end

-- If the session's last expected photo has ended: write session.completed and count the completion, once. The stream
-- first: where it cannot be written the session stays open, and the next move tries again. Photos that came in beyond
-- `expected`, into a completed session too, are waited for: they belong into its report.
local function session_complete(k, id, now, s)
  local ended = s.validated + s.dead
  if s.expected <= 0 then return false end
  if ended < math.max(s.expected, s.received) then
    if s.status == 'completed' then redis.call('HSET', k.hash, 'status', 'open') end
    return false
  end
  if s.status == 'completed' then return false end
  local all, counters, traceparent, source = redis.call('HGETALL', k.hash), {}, false, false
  local other = { session_id = 1, created_at = 1, last_accessed = 1, access_count = 1, site = 1, library = 1,
    expected = 1, status = 1, completion = 1 }
  for i = 1, #all, 2 do
    if all[i] == 'traceparent' then
      traceparent = all[i + 1]
    elseif all[i] == 'source' then
      source = all[i + 1]
    elseif not other[all[i]] then
      counters[all[i]] = session_number(all[i + 1])
    end
  end
  local completion = s.completion + 1
  local data = cjson.encode({ session_id = id, completion = completion, expected = s.expected, counters = counters,
    created_at = s.created_at / 1000, completed_at = now / 1000 })
  local fields = { 'id', 'session:' .. id .. ':' .. completion, 'source', 'erni:session', 'type', 'session.completed',
    'specversion', '1.0', 'datacontenttype', 'application/json', 'sessionid', id, 'data', data }
  if traceparent then
    fields[#fields + 1] = 'traceparent'
    fields[#fields + 1] = traceparent
  end
  if source then
    fields[#fields + 1] = 'ernisource'
    fields[#fields + 1] = source
  end
  redis.call('XADD', k.completed, '*', unpack(fields))
  redis.call('HSET', k.hash, 'completion', completion, 'status', 'completed')
  return true
end

-- Adds `deltas` (counter → change), files the session anew and completes it if that was its last photo. The first
-- `expected` above 0 counts. Without `create` a session that is not there stays absent.
-- Returns {missing, created, corrupt, completed: true where it applies}.
local function session_move(k, id, deltas, create, expected, now, ttl, long_ttl)
  local names, told = {}, {}
  for counter in pairs(deltas) do names[#names + 1] = counter end
  local state, s = session_load(k, id, names)
  -- the score is the last access: only what looks old is worth asking the indexes
  if state == 'sound' and s.last_accessed < now - ttl and session_late(k, id, s, now, ttl, long_ttl) then
    session_remove(k, id)
    session_tell(k, 'expired')
    state = 'none'
  end
  if state == 'corrupt' then
    told.corrupt = true
    session_tell(k, 'corrupt')
  end
  if state ~= 'sound' then
    if not create then
      told.missing = true
      return told
    end
    s = session_create(k, id, now, state)
    told.created = true
  end
  local fields = { 'last_accessed', now }
  for counter, change in pairs(deltas) do
    s[counter] = (s[counter] or 0) + change
    fields[#fields + 1] = counter
    fields[#fields + 1] = s[counter]
  end
  if expected > 0 and s.expected == 0 then
    s.expected = expected
    fields[#fields + 1] = 'expected'
    fields[#fields + 1] = expected
  end
  redis.call('HSET', k.hash, unpack(fields))
  if k.source and redis.call('HEXISTS', k.hash, 'source') == 0 then
    local noted = k.first and redis.pcall('GET', k.first)
    local first = type(noted) == 'string' and string.match(noted, '^%S+ (.+)$')
    redis.call('HSET', k.hash, 'source', first or k.source)
  end
  session_file(k, id, s, now, ttl, long_ttl)
  told.completed = session_complete(k, id, now, s)
  return told
end
