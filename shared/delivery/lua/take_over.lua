#!lua flags=allow-oom
-- Claims what a dead consumer owned, if its heartbeat counter has still not moved. Whoever empties a dead consumer deletes it
-- and its record here, atomically: XGROUP DELCONSUMER throws pending entries away, so it is done nowhere else.
--   KEYS  1 beats   2 processes   3… the agent's streams
--   ARGV  1 agent (group)   2 taker   3 dead consumer   4 the counter last seen ('' no record, '*' do not look: `returned`)
--         5 limit of entries to take   6 '1': one suspect, and nothing else   7 deliveries after which an entry is dead
--   ->    {'ALIVE'}  or  {'OK', {{stream, id, deliveries, fields}… taken}, {… over}, suspects left, entries left (at least),
--          {{stream, id}… that had no body any more}}
local group, me, whose, seen = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local room, alone, limit = tonumber(ARGV[5]), ARGV[6] == '1', tonumber(ARGV[7])
if seen ~= '*' and (redis.call('HGET', KEYS[1], whose) or '') ~= seen then return { 'ALIVE' } end

local PAGE = 10000
local taken, over, lost, suspects, left = {}, {}, {}, 0, 0
local function claim(k, e, list)
  local r = redis.call('XCLAIM', KEYS[k], group, me, 0, e[1])
  -- Redis 7 drops a pending entry whose body was deleted, and answers nothing
  if #r == 0 then
    redis.call('XACK', KEYS[k], group, e[1])
    lost[#lost + 1] = { k - 3, e[1] }
  else
    list[#list + 1] = { k - 3, e[1], e[4] + 1, r[1][2] }
  end
end
for k = 3, #KEYS do
  local pending = redis.pcall('XPENDING', KEYS[k], group, '-', '+', PAGE, whose)
  if not pending.err then
    -- a full page says nothing about what comes after it: the taker asks again, and the consumer stays until then
    if #pending == PAGE then left = left + 1 end
    for _, e in ipairs(pending) do
      if e[4] >= limit then
        if #over < 8 then claim(k, e, over) else left = left + 1 end
      elseif e[4] >= 2 then
        if alone and #taken < 1 then claim(k, e, taken) else suspects, left = suspects + 1, left + 1 end
      elseif not alone and #taken < room then
        claim(k, e, taken)
      else
        left = left + 1
      end
    end
  end
end
if left == 0 then
  for k = 3, #KEYS do redis.pcall('XGROUP', 'DELCONSUMER', KEYS[k], group, whose) end
  redis.call('HDEL', KEYS[1], whose)
  redis.call('HDEL', KEYS[2], whose)
end
return { 'OK', taken, over, suspects, left, lost }
