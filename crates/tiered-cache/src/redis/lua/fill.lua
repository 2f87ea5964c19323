-- Stores a value and ends the lease, if it still holds.
-- KEYS  1 values  2 lease  3 blocks  4 mark
-- ARGV  1 token  2 field  3 entry  4 life in ms  5 version  6 generation, if there is none  7 life of the mark in ms
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
    return {'lost'}
end
redis.call('DEL', KEYS[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
if redis.call('EXISTS', KEYS[3]) == 1 then
    return {'lost'}
end
local version = tonumber(ARGV[5])
local floor = tonumber(redis.call('HGET', KEYS[4], 'floor') or '0')
if version > 0 and version < floor then
    return {'older'}
end
local data_set = string.match(ARGV[2], ':.*')
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
    if string.match(field, ':.*') ~= data_set then
        redis.call('HDEL', KEYS[1], field)
    end
end
redis.call('HSET', KEYS[1], ARGV[2], string.format('%016d', now) .. ARGV[3])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[4]) then
    redis.call('PEXPIRE', KEYS[1], ARGV[4])
end
redis.call('HSETNX', KEYS[4], 'generation', ARGV[6])
if version > floor then
    redis.call('HSET', KEYS[4], 'floor', ARGV[5])
end
if redis.call('PTTL', KEYS[4]) < tonumber(ARGV[7]) then
    redis.call('PEXPIRE', KEYS[4], ARGV[7])
end
return {'stored', redis.call('HGET', KEYS[4], 'generation'), now}
