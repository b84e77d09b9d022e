#!lua flags=allow-oom
-- Moves one dead letter back to the stream it failed on. Two operators at once: one moves it, the other gets GONE.
--   KEYS  1 dead-letter stream   2 stream   3 open index   4 lru index   5 session.completed   6 session stats
--         7 dead letters by reason   8 dead letters by cause   9 archive   10 session hash, if any
--         the last one: progress of the operation, if any
--   ARGV  1 dead letter id   2 session id or ''   3 session ttl (ms)   4 the same in flight (ms)   5 most pairs
--         6 cursor of the agent in the progress, or ''
--         7 packed fields of the entry in the place of the original ones, or ''   8 who edited them
--         9 where the caller left that cursor, or ''
--   ->    {'OK', new entry id} | {'GONE'} | {'TOO_MANY', pairs} | {'UNREADABLE'}
--         | {'OVERTAKEN'}: another process has gone on with the operation
if ARGV[6] ~= '' and overtaken(KEYS[#KEYS], ARGV[6], ARGV[9]) then return { 'OVERTAKEN' } end
local e = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])
if #e == 0 then return { 'GONE' } end
local f, kept = {}, {}
for i = 1, #e[1][2], 2 do
  f[e[1][2][i]] = e[1][2][i + 1]
  kept[i], kept[i + 1] = e[1][2][i], e[1][2][i + 1]
end
local edited = ARGV[7] ~= ''
local readable, flat = pcall(cmsgpack.unpack, edited and ARGV[7] or f.raw or '')
if not readable or type(flat) ~= 'table' or #flat == 0 then return { 'UNREADABLE' } end
if #flat / 2 > tonumber(ARGV[5]) then return { 'TOO_MANY', tostring(#flat / 2) } end
flat[#flat + 1] = 'ernireplay'
flat[#flat + 1] = ((tonumber(f.replays) or 0) + 1) .. ' ' .. (f.traceparent or '')
local id = redis.call('XADD', KEYS[2], '*', unpack(flat)) -- an error ends the script before the removal
if edited then
  -- the original is not lost; it is not restored, because its photo is on its way again
  for _, word in ipairs({ 'discarded_by', ARGV[8], 'dead_id', ARGV[1], 'edited_as', id }) do kept[#kept + 1] = word end
  pcall(redis.call, 'XADD', KEYS[9], '*', unpack(kept))
end
redis.call('XDEL', KEYS[1], ARGV[1])
pcall(redis.call, 'HINCRBY', KEYS[7], f.reason or 'unknown', -1)
pcall(cause_gone, KEYS[8], ARGV[1], f.fingerprint or '')
if ARGV[6] ~= '' then pcall(counted, KEYS[#KEYS], 'done', ARGV[6], ARGV[1]) end
if ARGV[2] ~= '' then
  local k = { hash = KEYS[10], open = KEYS[3], lru = KEYS[4], completed = KEYS[5], stats = KEYS[6] }
  pcall(session_move, k, ARGV[2], { dead = -1 }, false, 0, session_now(), tonumber(ARGV[3]), tonumber(ARGV[4]))
end
return { 'OK', id }
