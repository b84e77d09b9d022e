#!lua flags=allow-oom
-- One heartbeat of a process, and its look at the others of its agent.
--   KEYS  1 beats   2 processes   3 paused   4 delayed set   5… the agent's streams
--   ARGV  1 consumer   2 the record of the process (JSON)   3 agent (the group's name)   4 '1': look at the others too
--   ->    {own counter, beats (flat), {{stream, consumer, pending}…}, entries due, paused since or '', {streams without
--          group}}
local counter = redis.call('HINCRBY', KEYS[1], ARGV[1], 1)
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('HSET', KEYS[2], ARGV[1], string.format('%.0f ', now) .. ARGV[2])
local owners, without = {}, {}
for k = 5, ARGV[4] == '1' and #KEYS or 4 do
  local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[k], ARGV[3])
  if consumers.err then
    without[#without + 1] = k - 5
  else
    for _, c in ipairs(consumers) do
      local name, pending
      for i = 1, #c, 2 do
        if c[i] == 'name' then name = c[i + 1] elseif c[i] == 'pending' then pending = c[i + 1] end
      end
      if name ~= ARGV[1] then owners[#owners + 1] = { k - 5, name, pending } end
    end
  end
end
return { counter, ARGV[4] == '1' and redis.call('HGETALL', KEYS[1]) or {}, owners, redis.call('ZCOUNT', KEYS[4], '-inf', now),
  redis.call('HGET', KEYS[3], ARGV[3]) or '', without }
