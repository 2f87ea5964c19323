-- Asks for the lease on a key, unless there is a newer value than the known one.
-- KEYS  1 values  2 lease  3 blocks  4 mark
-- ARGV  1 token  2 lease in ms  3 field  4 known stamp
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local value = redis.call('HGET', KEYS[1], ARGV[3])
if value and tonumber(string.sub(value, 1, 16)) ~= tonumber(ARGV[4]) then
    return {'found', now, value}
end
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
if redis.call('EXISTS', KEYS[3]) == 1 then
    return {'blocked', now}
end
if not redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then
    return {'held', now}
end
local mark = redis.call('HMGET', KEYS[4], 'generation', 'floor')
return {'granted', now, mark[1] or '0', mark[2] or '0'}
