-- A runner's process ends. What it still has is taken back by the next sweep. ARGV: ttl, runner.
redis.call('HDEL', key.runners, ARGV[2])
redis.call('HDEL', key.room, ARGV[2])
redis.call('ZADD', key.heard, 'XX', 0, ARGV[2])
