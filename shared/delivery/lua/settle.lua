#!lua flags=allow-oom
-- Ends a batch of deliveries of one stream: each entry is checked, its outputs are added, then it is acknowledged and
-- deleted. An entry that fails undoes only itself. allow-oom: a full server still drains.
--   KEYS  1 stream   2 marker of this consumer   3 open index   4 lru index   5 session.completed   6 session stats
--         7… named by position below
--   ARGV  1 packed {group, consumer, batch, marker_ttl (ms), photo_ttl (ms), session_ttl (ms), in_flight_ttl (ms: of a
--           session with photos in flight), lowest, highest: entry ids, entries {entry…}}
--           entry   = {id, n: deliveries, what, and by that:
--                      done       outputs {{key, fields}…}              the output events
--                      dead       outputs {{key, fields}…}, reason, counts: key   the dead letter beside its raw entry and,
--                                                               if it names a photo, the event that says so and the
--                                                               notices of it,
--                                 raw: packed, in place of the entry   of an entry that is too large
--                                                               and the hash that counts dead letters by reason
--                      postponed  delayed: key, wait (ms), held          the delayed set; held: it was not tried
--                      released                                         to the consumer `returned`
--                      and if there is one: photo: key, record: fields of the photo record; session}
--           session = {key, id, deltas {counter → change}, create, expected, photos: key or 0, photo: id, source, first: key}
--   ->    {{place in the batch, FENCED | GONE | the error…} of each entry that was not settled,
--          {side writes failed, sessions missing, corrupt, created, sessions with photos in flight, other sessions (both
--          -1: no session was touched)}}
local a = cmsgpack.unpack(ARGV[1])
local stream, marker, group, me, batch = KEYS[1], KEYS[2], a.group, a.consumer, a.batch

-- the reply of this very batch was lost: give it again
local last = redis.call('GET', marker)
if last then
  local m = cmsgpack.unpack(last)
  if m[1] == batch then return m[2] end
end

local now = session_now()
local mine = {}
for _, p in ipairs(redis.call('XPENDING', stream, group, a.lowest, a.highest, 1000000, me)) do mine[p[1]] = p[4] end

local types = {}
local function is(key, wanted)
  local t = types[key]
  if not t then
    t = redis.call('TYPE', key).ok
    types[key] = t
  end
  return t == wanted or t == 'none'
end
local wrong = 'WRONGTYPE of a key to be written: '

local failed = 0
local function side(f, ...)
  local ok, result = pcall(f, ...)
  if not ok then failed = failed + 1 end
  return ok and result
end

-- the fields as they came, without what the delivery engine appended when the entry came back (by its form: what an upstream
-- wrote under these names stays)
local function body(id, keep_replay)
  local e = redis.call('XRANGE', stream, id, id)
  local flat = e[1] and e[1][2] or {}
  local delayed
  while #flat >= 4 do
    local name, value = flat[#flat - 1], flat[#flat]
    if name == 'ernidelayed' and #value <= 35 and value:match('^%d+:%d+:%d+$') then delayed = value
    elseif name ~= 'ernireplay' or keep_replay or #value > 138 or not value:match('^%d+ [!-~]*$') then break end
    flat[#flat] = nil
    flat[#flat] = nil
  end
  return flat, delayed
end

-- adds all of them or none; `first` goes before the fields of the first one
local function add(outputs, first)
  for _, o in ipairs(outputs) do
    if not is(KEYS[o[1]], 'stream') then return wrong .. KEYS[o[1]] end
  end
  local added = {}
  for i, o in ipairs(outputs) do
    local r
    if first and i == 1 then
      r = redis.pcall('XADD', KEYS[o[1]], '*', 'raw', first, unpack(o[2]))
    else
      r = redis.pcall('XADD', KEYS[o[1]], '*', unpack(o[2]))
    end
    if type(r) == 'table' and r.err then
      for k = 1, i - 1 do redis.call('XDEL', KEYS[outputs[k][1]], added[k]) end
      return r.err
    end
    added[i] = r
    types[KEYS[o[1]]] = 'stream'
  end
end

local what = {}
function what.done(e)
  if e.outputs then return add(e.outputs) end
end
function what.dead(e)
  return add(e.outputs, e.raw or cmsgpack.pack((body(e.id, false))))
end
function what.postponed(e)
  local key = KEYS[e.delayed]
  if not is(key, 'zset') then return wrong .. key end
  local flat, delayed = body(e.id, true)
  local first, deliveries, times = now, 0, 0
  if delayed then
    local f, d, t = delayed:match('^(%d+):(%d+):(%d+)$')
    if f then first, deliveries, times = tonumber(f), tonumber(d), tonumber(t) end
  end
  -- %.0f: these milliseconds do not fit the %d of a 32-bit conversion
  local back = string.format('%.0f:%.0f:%.0f', first, deliveries + e.n, times + (e.held and 0 or 1))
  local r = redis.pcall('ZADD', key, now + e.wait, cmsgpack.pack({ e.id, flat, back, stream }))
  if type(r) == 'table' and r.err then return r.err end
end
function what.released(e)
  -- the taker's claim counts it up again: nothing is burnt
  redis.call('XCLAIM', stream, group, 'returned', 0, e.id, 'RETRYCOUNT', e.n - 1, 'JUSTID')
end

local others, ended, sessions, order = {}, {}, {}, {}
local function refused(place, why)
  others[#others + 1] = place
  others[#others + 1] = why
end
for i, e in ipairs(a.entries) do
  local id = e.id
  if mine[id] ~= e.n then
    local p = redis.call('XPENDING', stream, group, id, id, 1)
    refused(i, #p == 0 and 'GONE' or 'FENCED')
  else
    mine[id] = nil -- the same entry twice in a batch ends once
    local err = what[e.what](e)
    if err then
      refused(i, err)
    else
      if e.what ~= 'released' then ended[#ended + 1] = id end
      if e.counts then side(redis.call, 'HINCRBY', KEYS[e.counts], e.reason, 1) end
      if e.photo then
        local key = KEYS[e.photo]
        side(redis.call, 'HSET', key, unpack(e.record))
        side(redis.call, 'PEXPIRE', key, a.photo_ttl)
      end
      local s = e.session
      if s then
        local sum = sessions[s.key]
        if not sum then
          sum = { id = s.id, deltas = {}, create = false, expected = 0, photos = {} }
          sessions[s.key] = sum
          order[#order + 1] = s.key
        end
        for counter, change in pairs(s.deltas) do sum.deltas[counter] = (sum.deltas[counter] or 0) + change end
        sum.create = sum.create or s.create
        if s.source and not sum.source then sum.source, sum.first = s.source, KEYS[s.first] end
        if sum.expected == 0 then sum.expected = s.expected end
        if s.photos > 0 then
          sum.photos[#sum.photos + 1] = now
          sum.photos[#sum.photos + 1] = s.photo
          sum.photos_key = KEYS[s.photos]
        end
      end
    end
  end
end

-- acknowledged and deleted in one go; neither can fail after the XPENDING above
if #ended > 0 then
  redis.call('XACK', stream, group, unpack(ended))
  redis.call('XDEL', stream, unpack(ended))
end

local count, open, lru = { missing = 0, corrupt = 0, created = 0 }, -1, -1
for _, at in ipairs(order) do
  local sum = sessions[at]
  local k = { hash = KEYS[at], open = KEYS[3], lru = KEYS[4], completed = KEYS[5], stats = KEYS[6],
    photos = sum.photos_key, source = sum.source, first = sum.first }
  local result = side(session_move, k, sum.id, sum.deltas, sum.create, sum.expected, now, a.session_ttl,
    a.in_flight_ttl)
  for what in pairs(count) do
    if result and result[what] then count[what] = count[what] + 1 end
  end
  if k.photos and result and not result.missing then
    side(function()
      redis.call('ZADD', k.photos, 'NX', unpack(sum.photos))
      redis.call('PEXPIRE', k.photos, a.in_flight_ttl + SESSION_BACKSTOP)
    end)
  end
end
if #order > 0 then
  open = side(redis.call, 'ZCARD', KEYS[3]) or -1
  lru = side(redis.call, 'ZCARD', KEYS[4]) or -1
end

local reply = { others, { failed, count.missing, count.corrupt, count.created, open, lru } }
redis.call('SET', marker, cmsgpack.pack({ batch, reply }), 'PX', a.marker_ttl)
return reply
