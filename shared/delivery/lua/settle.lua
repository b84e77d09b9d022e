#!lua flags=allow-oom
-- Ends a batch of deliveries of one stream: each entry is checked, its outputs are added, then it is acknowledged and
-- deleted. An entry that fails undoes only itself. allow-oom: a full server still drains.
--   KEYS  1 stream   2 marker of this consumer   3 open index   4 lru index   5 session.completed   6 session stats
--         7… by index below
--   ARGV  1 packed {group, consumer, batch, marker ttl (ms), photo ttl (ms), session ttl (ms), the same in flight (ms),
--           lowest id, highest id, {entry…}}
--           entry   = {id, deliveries, what, payload, photo, session}
--           what    = 'done'         payload {{key, fields}…}           the outputs
--                     'dead'         payload {key, fields}              the dead letter beside its raw entry
--                     'postponed'    payload {key, delay (ms)}          the delayed set
--                     'interrupted'  payload false                      to the consumer `returned`
--           photo   = false or {key, fields}                            the photo record
--           session = false or {key, id, {counter → change}, create, expected, photos key or 0, photo id}
--   ->    {{reply per entry: OK | FENCED | GONE | the error}, {side writes failed, sessions missing, corrupt, created,
--          sessions with photos in flight, other sessions (both -1: no session was touched)}}
local a = cmsgpack.unpack(ARGV[1])
local stream, marker, group, me, batch = KEYS[1], KEYS[2], a[1], a[2], a[3]

-- the reply of this very batch was lost: give it again
local last = redis.call('GET', marker)
if last then
  local m = cmsgpack.unpack(last)
  if m[1] == batch then return m[2] end
end

local now = session_now()
local mine = {}
for _, p in ipairs(redis.call('XPENDING', stream, group, a[8], a[9], 1000000, me)) do mine[p[1]] = p[4] end

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

-- the fields as they came, without what the machinery appended when the entry came back (by its form: what an upstream
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

local what = {}
function what.done(id, n, outputs)
  for _, o in ipairs(outputs) do
    if not is(KEYS[o[1]], 'stream') then return wrong .. KEYS[o[1]] end
  end
  local added = {}
  for i, o in ipairs(outputs) do
    local r = redis.pcall('XADD', KEYS[o[1]], '*', unpack(o[2]))
    if type(r) == 'table' and r.err then
      for k = 1, i - 1 do redis.call('XDEL', KEYS[outputs[k][1]], added[k]) end
      return r.err
    end
    added[i] = r
    types[KEYS[o[1]]] = 'stream'
  end
end
function what.dead(id, n, letter)
  local key, fields = KEYS[letter[1]], letter[2]
  if not is(key, 'stream') then return wrong .. key end
  local flat = body(id, false)
  local r = redis.pcall('XADD', key, '*', 'raw', cmsgpack.pack(flat), unpack(fields))
  if type(r) == 'table' and r.err then return r.err end
end
function what.postponed(id, n, wait)
  local key = KEYS[wait[1]]
  if not is(key, 'zset') then return wrong .. key end
  local flat, delayed = body(id, true)
  local first, deliveries, times = now, 0, 0
  if delayed then
    local f, d, t = delayed:match('^(%d+):(%d+):(%d+)$')
    if f then first, deliveries, times = tonumber(f), tonumber(d), tonumber(t) end
  end
  -- %.0f: these milliseconds do not fit the %d of a 32-bit conversion
  local back = string.format('%.0f:%.0f:%.0f', first, deliveries + n, times + 1)
  local r = redis.pcall('ZADD', key, now + wait[2], cmsgpack.pack({ id, flat, back, stream }))
  if type(r) == 'table' and r.err then return r.err end
end
function what.interrupted(id, n)
  -- the taker's claim counts it up again: nothing is burnt
  redis.call('XCLAIM', stream, group, 'returned', 0, id, 'RETRYCOUNT', n - 1, 'JUSTID')
end

local replies, ended, sessions, order = {}, {}, {}, {}
for i, e in ipairs(a[10]) do
  local id, n, kind = e[1], e[2], e[3]
  if mine[id] ~= n then
    local p = redis.call('XPENDING', stream, group, id, id, 1)
    replies[i] = #p == 0 and 'GONE' or 'FENCED'
  else
    mine[id] = nil -- the same entry twice in a batch ends once
    local err = what[kind](id, n, e[4])
    replies[i] = err or 'OK'
    if not err then
      if kind ~= 'interrupted' then ended[#ended + 1] = id end
      local photo, s = e[5], e[6]
      if photo and a[5] > 0 then
        side(function()
          redis.call('HSET', KEYS[photo[1]], unpack(photo[2]))
          redis.call('PEXPIRE', KEYS[photo[1]], a[5])
        end)
      end
      if s then
        local sum = sessions[s[1]]
        if not sum then
          sum = { id = s[2], deltas = {}, create = false, expected = 0, photos = {} }
          sessions[s[1]] = sum
          order[#order + 1] = s[1]
        end
        for counter, change in pairs(s[3]) do sum.deltas[counter] = (sum.deltas[counter] or 0) + change end
        sum.create = sum.create or s[4]
        if sum.expected == 0 then sum.expected = s[5] end
        if s[6] > 0 then
          sum.photos[#sum.photos + 1] = s[7]
          sum.photos_key = KEYS[s[6]]
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

local told, open, lru = { missing = 0, corrupt = 0, created = 0 }, -1, -1
for _, at in ipairs(order) do
  local sum = sessions[at]
  local k = { hash = KEYS[at], open = KEYS[3], lru = KEYS[4], completed = KEYS[5], stats = KEYS[6],
    photos = sum.photos_key }
  local result = side(session_move, k, sum.id, sum.deltas, sum.create, sum.expected, now, a[6], a[7])
  for what in pairs(told) do
    if result and result[what] then told[what] = told[what] + 1 end
  end
  if k.photos and result and not result.missing then
    side(function()
      for _, photo in ipairs(sum.photos) do redis.call('ZADD', k.photos, 'NX', now, photo) end
      redis.call('PEXPIRE', k.photos, a[7] + SESSION_BACKSTOP)
    end)
  end
end
if #order > 0 then
  open = side(redis.call, 'ZCARD', KEYS[3]) or -1
  lru = side(redis.call, 'ZCARD', KEYS[4]) or -1
end

local reply = { replies, { failed, told.missing, told.corrupt, told.created, open, lru } }
redis.call('SET', marker, cmsgpack.pack({ batch, reply }), 'PX', a[4])
return reply
