#!lua flags=allow-oom
-- Moves postponed entries that are due back to their stream, each once however many processes try.
--   KEYS  1 delayed set   2 open index   3 lru index   4 session.completed   5 session stats   6… the streams that the
--         entries came from, then session hashes
--   ARGV  1 packed {session ttl (ms), the same in flight (ms), number of streams, {{member, session key or 0, session
--           id}…}}
--   ->    entries moved
local a = cmsgpack.unpack(ARGV[1])
local now, moved = session_now(), 0
local streams = {}
for k = 6, 5 + a[3] do streams[KEYS[k]] = true end
for _, m in ipairs(a[4]) do
  local score = redis.call('ZSCORE', KEYS[1], m[1])
  local e = score and tonumber(score) <= now and cmsgpack.unpack(m[1])
  if e and streams[e[4]] then
    local flat = e[2]
    flat[#flat + 1] = 'ernidelayed'
    flat[#flat + 1] = e[3]
    redis.call('XADD', e[4], '*', unpack(flat)) -- an error ends the script before the removal
    redis.call('ZREM', KEYS[1], m[1])
    moved = moved + 1
    if m[2] > 0 then
      local k = { hash = KEYS[m[2]], open = KEYS[2], lru = KEYS[3], completed = KEYS[4], stats = KEYS[5] }
      pcall(session_move, k, m[3], { postponed = -1 }, false, 0, now, a[1], a[2])
    end
  end
end
return moved
