-- KEYS: 3 readers (hash: until when, in ms). ARGV: reader, for so many ms.
local found = get('opened', 'closed')
if found[1] and not found[2] then
  redis.call('HSET', KEYS[3], ARGV[1], now_ms() + ARGV[2])
  if redis.call('PTTL', KEYS[3]) < tonumber(ARGV[2]) then
    redis.call('PEXPIRE', KEYS[3], ARGV[2])
  end
end
