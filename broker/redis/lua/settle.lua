-- A job has ended, wherever it was. ARGV: ttl, id, 1 if it counts for the rate of ends.
-- Returns its images, nil if it was settled before.
local id, record = ARGV[2], record_of(ARGV[2])
if not record then
  return false
end
if record.m then
  remove_waiting(id, record)
  drop_surplus(1)
elseif record.e then
  drop_entry(record.e)
end
redis.call('HDEL', key.open, id)
redis.call('HDEL', key.cancels, id)
redis.call('ZREM', key.deadlines, id)
if redis.call('HINCRBY', key.open_of, record.o, -1) <= 0 then
  redis.call('HDEL', key.open_of, record.o)
end
if ARGV[3] == '1' then
  local second = math.floor(now_ms() / 1000)
  redis.call('HINCRBY', key.ended, second, 1)
  if redis.call('HLEN', key.ended) > RATE_WINDOW_S + 10 then
    for _, at in ipairs(redis.call('HKEYS', key.ended)) do
      if tonumber(at) < second - RATE_WINDOW_S then
        redis.call('HDEL', key.ended, at)
      end
    end
  end
end
touch_all()
redis.call('PEXPIRE', key.ended, RATE_WINDOW_S * 1000)
return record.im
