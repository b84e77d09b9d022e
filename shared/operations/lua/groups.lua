#!lua flags=allow-oom
-- Groups a page of dead letters by fingerprint, here, so that neither the entries nor the letters need travel.
--   KEYS  1 dead-letter stream
--   ARGV  1 first id, or '(' and the last id of the page before   2 last id   3 most dead letters
--         4… what must hold: field, value, … ('name' is the photo's id or its file name, 'trace' a trace id)
--   ->    {last id seen or '', {fingerprint, count, newest ids (at most 3, oldest first, with a space between)}…}
local known = { exhausted = true, permanent = true, undecodable = true, delivery_limit = true }
local function meant(f)
  local fields = { error_type = 'unknown', fingerprint = '' }
  -- `raw` comes first and is long
  for i = 1, #f, 2 do
    if f[i] ~= 'raw' then fields[f[i]] = f[i + 1] end
  end
  if not known[fields.reason] then fields.reason = 'undecodable' end
  for i = 4, #ARGV, 2 do
    local name, value = ARGV[i], ARGV[i + 1]
    if name == 'name' then
      if fields.photo ~= value and fields.file_name ~= value then return false end
    elseif name == 'trace' then
      if (fields.traceparent or ''):sub(4, 35) ~= value then return false end
    elseif fields[name] ~= value then
      return false
    end
  end
  return true
end

local counts, newest, order, last = {}, {}, {}, ''
for _, e in ipairs(redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[2], 'COUNT', ARGV[3])) do
  last = e[1]
  local f = e[2]
  if #ARGV == 3 or meant(f) then
    local fp = ''
    for i = 1, #f, 2 do
      if f[i] == 'fingerprint' then
        fp = f[i + 1]
        break
      end
    end
    if not counts[fp] then
      order[#order + 1] = fp
      newest[fp] = {}
    end
    counts[fp] = (counts[fp] or 0) + 1
    local ids = newest[fp]
    ids[#ids + 1] = e[1]
    if #ids > 3 then table.remove(ids, 1) end
  end
end
local groups = {}
for _, fp in ipairs(order) do
  groups[#groups + 1] = fp
  groups[#groups + 1] = counts[fp]
  groups[#groups + 1] = table.concat(newest[fp], ' ')
end
return { last, groups }
