-- Asks for the lease on a key, unless there is another value than the known one.
-- KEYS  1 state  2 values  3 lease  4 mark
-- ARGV  1 token  2 lease in ms  3 field  4 known stamp  5 the slot's counter
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local state = redis.call('HMGET', KEYS[1], 'id', ARGV[5], 'cleaned')
if not state[1] then
    return redis.error_reply('NOSTATE nobody has said yet what is stored here')
end
local generation = state[1] .. '.' .. (state[2] or '')
local value = redis.call('HMGET', KEYS[2], 'generation', ARGV[3])
if value[2] and value[1] == generation and string.sub(value[2], 1, 16) ~= ARGV[4] then
    return {'found', now, state[3] or '0', value[2]}
end
local left = redis.call('PTTL', KEYS[3])
-- What doesn't end in a lease's time is somebody else's, and goes.
if left >= 0 and left <= tonumber(ARGV[2]) then
    return {'held'}
end
redis.call('SET', KEYS[3], ARGV[1] .. ' ' .. generation, 'PX', ARGV[2])
local mark = redis.pcall('GET', KEYS[4])
local copy, of = string.match(type(mark) == 'string' and mark or '', '^(%d+) (.*)$')
return {'granted', now, state[3] or '0', of == generation and copy or '0'}
