#!lua flags=allow-oom
-- Reads many sessions of one lane without noting an access. One past its time is removed and counts as absent. The
-- reply is packed, since one string costs the server and the client less than one for each field.
--   KEYS  1 open index   2 lru index   3 session stats   4… session hash, its photos, …
--   ARGV  1 ttl (ms)   2 ttl while in flight or dead letters wait (ms)   3… session ids
--   ->    packed {{fields (flat), 'hit' | 'none' | 'expired' | 'corrupt'}…}
local ttl, long_ttl, now, found = tonumber(ARGV[1]), tonumber(ARGV[2]), session_now(), {}
for i = 3, #ARGV do
  local k = { hash = KEYS[2 * i - 2], photos = KEYS[2 * i - 1], open = KEYS[1], lru = KEYS[2], stats = KEYS[3] }
  local state, s = session_load(k, ARGV[i])
  if state == 'sound' and session_late(k, ARGV[i], s, now, ttl, long_ttl) then
    state = 'expired'
    session_remove(k, ARGV[i])
  end
  if state == 'sound' then
    found[#found + 1] = { redis.call('HGETALL', k.hash), 'hit' }
  else
    if state ~= 'none' then session_tell(k, state) end
    found[#found + 1] = { {}, state }
  end
end
return cmsgpack.pack(found)
