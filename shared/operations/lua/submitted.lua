#!lua flags=allow-oom
-- Notes that photos were published over HTTP: by whom, before the first agent has seen them.
--   KEYS  1 2… of each photo its record, and the owner of its session (twice the record if it has none)
--   ARGV  1 how long a record stays (ms; 0: no records)   2 the same of an owner   3 the source   4… of each photo the
--         note (JSON), its session or '', its file name or ''
--   ->    of each photo the note of its record, which is the one of the first event
-- The first one stays: another source that names a photo or a session does not take it over.
local reply = {}
for i = 1, #KEYS, 2 do
  local record, owner = KEYS[i], KEYS[i + 1]
  local at = 4 + (i - 1) / 2 * 3
  local note, session, name = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  if ARGV[1] ~= '0' then
    redis.call('HSETNX', record, 'submitted', note)
    if session ~= '' then redis.call('HSETNX', record, 'session', session) end
    if name ~= '' then redis.call('HSETNX', record, 'file_name', name) end
    if redis.call('PTTL', record) < 0 then redis.call('PEXPIRE', record, ARGV[1]) end
    note = redis.call('HGET', record, 'submitted')
  end
  if owner ~= record then
    redis.call('SET', owner, ARGV[3], 'NX')
    redis.call('PEXPIRE', owner, ARGV[2])
  end
  reply[#reply + 1] = note
end
return reply
