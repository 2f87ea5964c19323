-- Removes the values of some keys, breaks their leases and tells every replica.
-- KEYS  1 bus  2 bus state, then for each key  values  lease  blocks  mark
-- ARGV  1 origin  2 hashes, 16 bytes each  3 write  4 block in ms (0: the write is done)  5 version
--       6 generation  7 life of the mark in ms  8 longest bus  9 id of the data set, if it has none  10 cause, if any
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local block = tonumber(ARGV[4])
for i = 3, #KEYS, 4 do
    redis.call('DEL', KEYS[i], KEYS[i + 1])
    local blocks = KEYS[i + 2]
    if block > 0 then
        redis.call('ZREMRANGEBYSCORE', blocks, '-inf', now)
        redis.call('ZADD', blocks, now + block, ARGV[3])
        redis.call('PEXPIRE', blocks, math.max(block, redis.call('PTTL', blocks)))
    else
        redis.call('ZREM', blocks, ARGV[3])
    end
    local mark = KEYS[i + 3]
    redis.call('HSET', mark, 'generation', ARGV[6])
    local version = tonumber(ARGV[5])
    if version > tonumber(redis.call('HGET', mark, 'floor') or '0') then
        redis.call('HSET', mark, 'floor', ARGV[5])
    end
    redis.call('PEXPIRE', mark, ARGV[7])
end
redis.call('HSETNX', KEYS[2], 'id', ARGV[9])
local sequence = redis.call('HINCRBY', KEYS[2], 'sequence', 1)
local entry = {'h', ARGV[2], 'o', ARGV[1], 's', sequence}
if ARGV[10] ~= '' then
    entry[7], entry[8] = 'c', ARGV[10]
end
local last = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[8], '*', unpack(entry))
redis.call('HSET', KEYS[2], 'last', last)
return sequence
