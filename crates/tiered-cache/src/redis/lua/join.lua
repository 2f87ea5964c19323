-- Finds the end of the log. The data set gets a new id where it is new, or where it may have missed invalidations, since
-- another server brought it along or it went back in time: then nothing that hangs on the old id is used any more.
-- KEYS  1 bus state
-- ARGV  1 id of the server's run  2 a new id of the data set  3 the id that must go (0: none)
local state = redis.call('HMGET', KEYS[1], 'id', 'server')
if not state[1] or state[2] ~= ARGV[1] or state[1] == ARGV[3] then
    redis.call('HSET', KEYS[1], 'id', ARGV[2], 'server', ARGV[1])
end
return redis.call('HMGET', KEYS[1], 'id', 'sequence', 'last')
