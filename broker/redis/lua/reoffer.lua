-- A job that a runner had waits again, before all others. ARGV: ttl, id, runner, epoch that it was offered with, new
-- epoch. Does nothing if it has moved on.
local record = record_of(ARGV[2])
if record and record.r == ARGV[3] and record.ep == tonumber(ARGV[4]) then
  if record.e then
    drop_entry(record.e)
  end
  record.ep = tonumber(ARGV[5])
  redis.call('HDEL', key.cancels, ARGV[2])
  enqueue(ARGV[2], record, 0)
  touch_all()
  wake()
end
