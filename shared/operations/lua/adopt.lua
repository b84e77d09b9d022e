#!lua flags=allow-oom
-- Gives entries that belong to nobody to the consumer `returned`, from which every process takes. Such an entry was
-- delivered once, is not pending, and is still in the stream: somebody deleted its consumer (XGROUP DELCONSUMER), or a log
-- that was cut in the middle lost the pending entry.
--   KEYS  1 stream
--   ARGV  1 agent (group)   2 first entry id to look at   3 limit of entries to look at   4 '0': count them only
--   ->    {entries adopted, or counted, the id to go on from, or '' at the end}
local last
local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
if groups.err then return { 0, '' } end -- no stream yet
for _, g in ipairs(groups) do
  local group = {}
  for i = 1, #g, 2 do group[g[i]] = g[i + 1] end
  if group.name == ARGV[1] then last = group['last-delivered-id'] end
end
if not last or last == '0-0' then return { 0, '' } end
local entries = redis.call('XRANGE', KEYS[1], ARGV[2], last, 'COUNT', ARGV[3])
if #entries == 0 then return { 0, '' } end
local first, newest, pending = entries[1][1], entries[#entries][1], {}
for _, p in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], first, newest, 10 * #entries)) do pending[p[1]] = true end
local adopted = 0
for _, e in ipairs(entries) do
  -- asked once more for this entry alone: pending entries without a body may have filled the reply, and FORCE takes
  -- from whoever has it
  if not pending[e[1]] and #redis.call('XPENDING', KEYS[1], ARGV[1], e[1], e[1], 1) == 0 then
    -- RETRYCOUNT 0: the taker's claim counts the delivery
    if ARGV[4] ~= '0' then
      redis.call('XCLAIM', KEYS[1], ARGV[1], 'returned', 0, e[1], 'FORCE', 'JUSTID', 'RETRYCOUNT', 0)
    end
    adopted = adopted + 1
  end
end
return { adopted, #entries == tonumber(ARGV[3]) and '(' .. newest or '' }
