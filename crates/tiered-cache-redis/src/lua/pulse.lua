-- A replica's sign of life. Makes one of those that know the log best the courier, for a while.
-- KEYS  1 state  2 replicas: by the time at which each had told all; with 1e13 more: those that left, by when they did;
--       with 2e13 more: those that can read the log, by their last pulse, with an s before their names
--       3 bus
-- ARGV  1 replica  2 when it had told all, by this clock in ms (0: it doesn't know that)  3 it can read the log: 1
--       4 the position it read last  5 ms for a courier  6 a new id of the state  7 life of the state in ms
--       8 ms after which a silent replica is forgotten  9 and one that left  10 it hasn't read the log lately: 1
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local sees = ARGV[3] == '1'
-- The first write is one that Redis refuses when it is full.
redis.call('HSETNX', KEYS[1], 'id', ARGV[6])
-- What comes late doesn't count from now.
local told = math.min(tonumber(ARGV[2]), now)
if told > 0 then
    redis.call('ZADD', KEYS[2], told, ARGV[1])
end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - ARGV[8])
redis.call('ZREMRANGEBYSCORE', KEYS[2], 2e13, 2e13 + now - ARGV[8])
if sees then
    redis.call('ZADD', KEYS[2], 2e13 + now, 's' .. ARGV[1])
    -- The log can tell again who left: here they'd hide that somebody else gives no pulse.
    redis.call('ZREMRANGEBYSCORE', KEYS[2], 1e13, '(2e13')
else
    redis.call('ZREM', KEYS[2], 's' .. ARGV[1])
    redis.call('ZREMRANGEBYSCORE', KEYS[2], 1e13, 1e13 + now - ARGV[9])
end
if ARGV[10] == '1' then
    redis.call('HSET', KEYS[1], 'blind', now)
end
redis.call('PEXPIRE', KEYS[1], ARGV[7])
redis.call('PEXPIRE', KEYS[2], ARGV[7])
local state = redis.call('HMGET', KEYS[1], 'courier', 'until', 'cleaned', 'cleaned_at', 'blind', 'furthest', 'told_from',
    'told_to', 'sequence')
local furthest = tonumber(state[6]) or 0
if tonumber(ARGV[4]) > furthest then
    furthest = tonumber(ARGV[4])
    redis.call('HSET', KEYS[1], 'furthest', ARGV[4])
end
local watched = redis.call('ZCOUNT', KEYS[2], 2e13, '+inf') > 0
-- When nobody can read it any more, the one that read furthest tells the others.
local able = sees or not watched and tonumber(ARGV[4]) >= furthest
local left = (tonumber(state[2]) or 0) - now
local courier = able and (state[1] == ARGV[1] or left < 0 or left > tonumber(ARGV[5]))
if courier then
    redis.call('HSET', KEYS[1], 'courier', ARGV[1], 'until', now + ARGV[5])
elseif state[1] == ARGV[1] then
    redis.call('HDEL', KEYS[1], 'courier', 'until')
end
local oldest = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
local function ago(at)
    at = tonumber(at)
    return at and at <= now and now - at or -1
end
local blind = ago(state[5])
local last = redis.pcall('XREVRANGE', KEYS[3], '+', '-', 'COUNT', 1)
return {now, courier and 1 or 0, state[3] or '0', ago(state[4]), watched and 1 or 0,
    string.format('%.0f', furthest), redis.call('ZCOUNT', KEYS[2], '-inf', '(2e13'), ago(oldest[2]),
    blind >= 0 and blind < 2000 and 1 or 0, state[7] or '0', state[8] or '0', state[9] or '0',
    last[1] and last[1][1] or ''}
