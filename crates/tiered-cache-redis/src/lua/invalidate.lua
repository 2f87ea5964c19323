-- Removes the values of some keys, or of whole kinds, breaks their leases and tells every replica.
-- KEYS  1 state  2 bus  then for each key  values  lease  mark
-- ARGV  1 origin  2 changes  3 cause, if any  4 longest bus  5 life of the bus in ms
--       6 slots to be forgotten, with commas  7 their new counter  8 bytes of the changes in one entry
local size = tonumber(ARGV[8])
local entries = math.ceil(#ARGV[2] / size)
local last = redis.pcall('HINCRBY', KEYS[1], 'sequence', entries)
if type(last) == 'table' then
    local there = string.match(redis.call('HGET', KEYS[1], 'sequence') or '0', '^%d+$')
    if there and #there < 19 then
        return last
    end
    -- Somebody else wrote there. That it begins anew is noticed.
    redis.call('HDEL', KEYS[1], 'sequence')
    last = redis.call('HINCRBY', KEYS[1], 'sequence', entries)
end
for i = 3, #KEYS do
    redis.call('DEL', KEYS[i])
end
for slot in string.gmatch(ARGV[6], '[^,]+') do
    redis.call('HSET', KEYS[1], slot, ARGV[7])
end
for i = 1, entries do
    local some = string.sub(ARGV[2], (i - 1) * size + 1, i * size)
    redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[4], '*',
        'c', some, 'o', ARGV[1], 's', last - entries + i, 'l', ARGV[3])
end
redis.call('PEXPIRE', KEYS[2], ARGV[5])
return last
