-- KEYS: 1 file. ARGV: ttl in ms.
redis.call('PEXPIRE', KEYS[1], ARGV[1])
