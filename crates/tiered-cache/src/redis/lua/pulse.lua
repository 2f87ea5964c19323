-- A replica's sign of life. Makes one of those that can read the log the courier, for a while.
-- KEYS  1 state  2 replicas
-- ARGV  1 replica  2 ms that it is behind  3 it can read the log: 1  4 ms for a courier  5 a new id of the state
--       6 life of the state in ms  7 ms after which a silent replica is forgotten
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[2], now - ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - ARGV[7])
redis.call('HSETNX', KEYS[1], 'id', ARGV[5])
redis.call('HSET', KEYS[1], ARGV[3] == '1' and 'seen' or 'blind', now)
if ARGV[3] == '1' then
    -- The log can tell again who left: here they'd hide that somebody else gives no pulse.
    redis.call('ZREMRANGEBYSCORE', KEYS[2], '(' .. now, '+inf')
elseif redis.call('HGET', KEYS[1], 'courier') == ARGV[1] then
    redis.call('HDEL', KEYS[1], 'courier', 'until')
end
redis.call('PEXPIRE', KEYS[1], ARGV[6])
redis.call('PEXPIRE', KEYS[2], ARGV[6])
local state = redis.call('HMGET', KEYS[1], 'courier', 'until', 'cleaned', 'cleaned_at', 'seen', 'blind')
local left = (tonumber(state[2]) or 0) - now
local another = state[1] ~= ARGV[1] and left >= 0 and left <= tonumber(ARGV[4])
local courier = ARGV[3] == '1' and not another
if courier then
    redis.call('HSET', KEYS[1], 'courier', ARGV[1], 'until', now + ARGV[4])
end
local oldest = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
local function ago(at)
    at = tonumber(at)
    return at and at <= now and now - at or -1
end
local blind = ago(state[6])
return {courier and 1 or 0, state[3] or '0', ago(state[4]), ago(state[5]), redis.call('ZCARD', KEYS[2]),
    oldest[2] and now - oldest[2] or 0, blind >= 0 and blind < 2000 and 1 or 0}
