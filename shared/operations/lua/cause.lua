-- Takes one dead letter out of the causes that were counted, if it is among them.
--   key: the hash of causes   id, fingerprint: of the dead letter
local function cause_gone(key, id, fingerprint)
  local function parts(of)
    local millis, sequence = of:match('^(%d+)%-(%d+)$')
    return tonumber(millis), tonumber(sequence)
  end
  local last = redis.call('HGET', key, 'last')
  if not last then return end
  local a, b = parts(id)
  local c, d = parts(last)
  if a > c or (a == c and b > d) then return end
  local field = 'cause:' .. fingerprint
  local words = {}
  for word in redis.call('HGET', key, field):gmatch('%S+') do
    if word ~= id then words[#words + 1] = word end
  end
  words[1] = string.format('%d', tonumber(words[1]) - 1)
  if words[1] == '0' then
    redis.call('HDEL', key, field)
  else
    redis.call('HSET', key, field, table.concat(words, ' '))
  end
end
