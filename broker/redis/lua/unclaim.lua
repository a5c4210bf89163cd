-- KEYS: 1 claim. ARGV: response that it must stand for.
if redis.call('HGET', KEYS[1], 'response') == ARGV[1] then
  redis.call('DEL', KEYS[1])
end
