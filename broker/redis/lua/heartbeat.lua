-- ARGV: ttl, runner, status, 1 if it is ready.
hear(ARGV[2])
redis.call('HSET', key.runners, ARGV[2], ARGV[3])
if ARGV[4] == '1' then
  redis.call('HSET', key.load, 'ready_at', now_ms())
else -- it will not be back for what it had room for, nor for what is kept for it
  redis.call('HDEL', key.room, ARGV[2])
  local reserved = redis.call('HGETALL', key.reserved)
  for index = 1, #reserved, 2 do
    if string.match(reserved[index + 1], '^%d+ (.*)$') == ARGV[2] then
      redis.call('HDEL', key.reserved, reserved[index])
      wake()
    end
  end
end
ensure_group() -- so that who scales by the group's lag finds it
touch_all()
