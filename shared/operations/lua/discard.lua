#!lua flags=allow-oom
-- Deletes one dead letter for good, and counts it no more.
--   KEYS  1 dead-letter stream   2 dead letters by reason   3 dead letters by cause
--   ARGV  1 dead letter id
--   ->    1, or 0 if it was gone already
local e = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
if not e then return 0 end
local reason, fingerprint = 'unknown', ''
for i = 1, #e[2], 2 do
  if e[2][i] == 'reason' then reason = e[2][i + 1] end
  if e[2][i] == 'fingerprint' then fingerprint = e[2][i + 1] end
end
redis.call('XDEL', KEYS[1], ARGV[1])
pcall(redis.call, 'HINCRBY', KEYS[2], reason, -1)
pcall(cause_gone, KEYS[3], ARGV[1], fingerprint)
return 1
