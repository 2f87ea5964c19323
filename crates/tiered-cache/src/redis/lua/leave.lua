-- A replica ends: nobody waits for its pulse any more. A score in the future is never the oldest.
-- KEYS  1 state  2 replicas
-- ARGV  1 replica  2 ms for which it is still counted
local time = redis.call('TIME')
redis.call('ZADD', KEYS[2], time[1] * 1000 + ARGV[2], ARGV[1])
if redis.call('HGET', KEYS[1], 'courier') == ARGV[1] then
    redis.call('HDEL', KEYS[1], 'courier', 'until')
end
return 1
