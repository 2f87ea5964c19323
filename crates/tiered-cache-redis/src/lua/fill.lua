-- Stores a value and ends the lease, if it still holds.
-- KEYS  1 state  2 values  3 lease  4 mark
-- ARGV  1 token  2 field  3 entry  4 life in ms  5 version  6 the slot's counter  7 name of the copy in L3 (0: none)
--       8 life of the copy in ms
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local state = redis.call('HMGET', KEYS[1], 'id', ARGV[6])
local generation = (state[1] or '') .. '.' .. (state[2] or '')
if redis.call('GET', KEYS[3]) ~= ARGV[1] .. ' ' .. generation then
    return {'lost'}
end
local there = redis.call('HMGET', KEYS[2], 'generation', 'version')
local version = tonumber(ARGV[5])
local same = there[1] == generation
if same and version > 0 and (tonumber(there[2]) or 0) > version then
    redis.call('DEL', KEYS[3])
    return {'older'}
end
-- The first write is one that Redis refuses when it is full: what follows a write is let through.
redis.call('HSET', KEYS[2], ARGV[2], string.format('%016d', now) .. ARGV[3])
if not same or tonumber(there[2]) ~= version then
    for _, field in ipairs(redis.call('HKEYS', KEYS[2])) do
        if field ~= ARGV[2] then
            redis.call('HDEL', KEYS[2], field)
        end
    end
    redis.call('HSET', KEYS[2], 'generation', generation, 'version', ARGV[5])
end
if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[4]) then
    redis.call('PEXPIRE', KEYS[2], ARGV[4])
end
if ARGV[7] ~= '0' then
    redis.call('SET', KEYS[4], ARGV[7] .. ' ' .. generation, 'PX', ARGV[8])
end
redis.call('DEL', KEYS[3])
return {'stored', now}
