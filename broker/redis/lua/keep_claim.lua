-- KEYS: 1 claim. ARGV: response that it must stand for, ttl in ms.
if redis.call('HGET', KEYS[1], 'response') == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
