-- Removes what is older than the log says, for the courier alone.
-- KEYS  1 state  2 bus  then for each key  values  lease  mark
-- ARGV  1 courier  2 position up to which all is clean then (0: there is more to come)
--       3 when the log was read, by this clock in ms
--       4 a new id of the state, where nothing may be used any more, else 0  5 slots to be forgotten, with commas
--       6 their new counter  7 changes for the bus, if any  8 bytes of them in one entry  9 longest bus
--       10 life of the bus in ms  11 position after which all that changed was put on the bus (empty: nothing is)
--       12 position of the last read  then for each key its version
if redis.call('HGET', KEYS[1], 'courier') ~= ARGV[1] then
    return 0
end
-- The first write is one that Redis refuses when it is full.
redis.call('HSET', KEYS[1], 'courier', ARGV[1])
if ARGV[4] ~= '0' then
    redis.call('HSET', KEYS[1], 'id', ARGV[4])
end
for slot in string.gmatch(ARGV[5], '[^,]+') do
    redis.call('HSET', KEYS[1], slot, ARGV[6])
end
for i = 3, #KEYS, 3 do
    local version = tonumber(ARGV[12 + i / 3])
    -- Somebody else's key of another type has no version, and goes.
    local there = tonumber(redis.pcall('HGET', KEYS[i], 'version')) or 0
    redis.call('DEL', KEYS[i + 1])
    if version == 0 or there < version then
        redis.call('DEL', KEYS[i], KEYS[i + 2])
    end
end
for from = 1, #ARGV[7], tonumber(ARGV[8]) do
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
    local some = string.sub(ARGV[7], from, from + ARGV[8] - 1)
    redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[9], '*', 'c', some, 'o', '0', 's', sequence)
    redis.call('PEXPIRE', KEYS[2], ARGV[10])
end
if ARGV[2] ~= '0' then
    local before = tonumber(redis.call('HGET', KEYS[1], 'cleaned')) or 0
    if ARGV[4] ~= '0' or tonumber(ARGV[2]) > before then
        redis.call('HSET', KEYS[1], 'cleaned', ARGV[2])
    end
    redis.call('HSET', KEYS[1], 'cleaned_at', ARGV[3])
end
if ARGV[11] == '' then
    redis.call('HDEL', KEYS[1], 'told_from', 'told_to')
elseif ARGV[2] ~= '0' then
    -- What another one read after this one's last read but one may be more than this one saw.
    local furthest = tonumber(redis.call('HGET', KEYS[1], 'furthest')) or 0
    local to = tonumber(ARGV[12]) >= furthest and ARGV[12] or ARGV[2]
    redis.call('HSET', KEYS[1], 'told_from', ARGV[11], 'told_to', to)
end
return 1
