-- Removes the values of some keys, or of whole kinds, breaks their leases and tells every replica.
-- KEYS  1 state  2 bus  then for each key  values  lease  mark
-- ARGV  1 origin  2 changes  3 cause, if any  4 longest bus  5 life of the bus in ms
--       6 slots to be forgotten, with commas  7 their new counter
local sequence = redis.pcall('HINCRBY', KEYS[1], 'sequence', 1)
if type(sequence) == 'table' then
    local last = string.match(redis.call('HGET', KEYS[1], 'sequence') or '0', '^%d+$')
    if last and #last < 19 then
        return sequence
    end
    -- Somebody else wrote there. That it begins anew is noticed.
    redis.call('HDEL', KEYS[1], 'sequence')
    sequence = redis.call('HINCRBY', KEYS[1], 'sequence', 1)
end
for i = 3, #KEYS do
    redis.call('DEL', KEYS[i])
end
for slot in string.gmatch(ARGV[6], '[^,]+') do
    redis.call('HSET', KEYS[1], slot, ARGV[7])
end
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[4], '*',
    'c', ARGV[2], 'o', ARGV[1], 's', sequence, 'l', ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[5])
return sequence
