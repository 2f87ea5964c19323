-- A replica ends: nobody waits for its pulse any more. One that couldn't read the log stays counted, as it stays in the log.
-- KEYS  1 state  2 replicas (see pulse)
-- ARGV  1 replica  2 it could read the log: 1
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[2] == '1' then
    redis.call('ZREM', KEYS[2], ARGV[1])
else
    redis.call('ZADD', KEYS[2], 1e13 + now, ARGV[1])
end
redis.call('ZREM', KEYS[2], 's' .. ARGV[1])
if redis.call('HGET', KEYS[1], 'courier') == ARGV[1] then
    redis.call('HDEL', KEYS[1], 'courier', 'until')
end
return 1
