-- ARGV: ttl, runner, status, 1 if it is ready.
hear(ARGV[2])
redis.call('HSET', key.runners, ARGV[2], ARGV[3])
if ARGV[4] == '1' then
  redis.call('HSET', key.load, 'ready_at', now_ms())
end
ensure_group() -- so that who scales by the group's lag finds it
touch_all()
