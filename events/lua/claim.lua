#!lua flags=allow-oom
-- Marks an entry that came without the publish script, once for its source and id. allow-oom: a full server still drains.
--   KEYS  1 marker of the event's source and id
--   ARGV  1 entry id   2 fingerprint of the content   3 fingerprint of the bytes   4 window (ms)
--   ->    'FIRST': the event is this entry's   'TWICE': another entry has this content   'REUSED': another content
local seen = redis.call('GET', KEYS[1])
if not seen then
  redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[2], 'PX', ARGV[4])
  return 'FIRST'
end
local id, once = seen:match('^(%S+) ?(.*)$')
if id == ARGV[1] then return 'FIRST' end
return (once == ARGV[2] or once == ARGV[3]) and 'TWICE' or 'REUSED'
