#!lua flags=allow-oom
-- Compares what a process has in flight with what it owns. It finds entries it lost, and entries it owns and never saw (a
-- read whose reply was lost, a failover that rolled back), which it claims again. A suspect among these goes to the
-- consumer `returned`, because only the take-over handles an entry alone.
--   KEYS  1 stream
--   ARGV  1 agent (group)   2 consumer   3 limit of orphans to take   4 packed {id, deliveries, id, deliveries, …} in flight
--   ->    {{id… lost}, {{id, deliveries, fields}… orphans}, {id… without body}}
local flying = cmsgpack.unpack(ARGV[4])
local held, owned, lost, orphans, gone = {}, {}, {}, {}, {}
for i = 1, #flying, 2 do held[flying[i]] = flying[i + 1] end
local PAGE = 100000
local pending = redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', PAGE, ARGV[2])
local full = #pending == PAGE
for _, p in ipairs(pending) do
  owned[p[1]] = p[4]
  if not held[p[1]] and p[4] >= 2 then
    local r = redis.call('XCLAIM', KEYS[1], ARGV[1], 'returned', 0, p[1], 'RETRYCOUNT', p[4], 'JUSTID')
    if #r == 0 then gone[#gone + 1] = p[1] end
  elseif not held[p[1]] and #orphans < tonumber(ARGV[3]) then
    local r = redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, p[1])
    if #r == 0 then
      redis.call('XACK', KEYS[1], ARGV[1], p[1])
      gone[#gone + 1] = p[1]
    else
      orphans[#orphans + 1] = { p[1], p[4] + 1, r[1][2] }
    end
  end
end
for id, n in pairs(held) do
  -- one that stands behind a full page is looked at alone
  if full and not owned[id] then
    local p = redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1, ARGV[2])
    if p[1] then owned[id] = p[1][4] end
  end
  if owned[id] ~= n then lost[#lost + 1] = id end
end
return { lost, orphans, gone }
