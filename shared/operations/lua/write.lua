#!lua flags=allow-oom
-- Runs one command that writes, also when the memory is full: what a person orders to free memory must not need any.
--   KEYS  1 key
--   ARGV  1 command   2… its words behind the key
--   ->    its reply
return redis.call(ARGV[1], KEYS[1], unpack(ARGV, 2))
