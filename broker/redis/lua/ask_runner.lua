-- The end of a running job is asked for. ARGV: ttl, id. Returns 1 if a runner has it.
local record = record_of(ARGV[2])
if record and record.r then
  redis.call('HSET', key.cancels, ARGV[2], record.r)
  redis.call('PEXPIRE', key.cancels, ARGV[1])
  redis.call('PUBLISH', key.cancels, '')
  return 1
end
return 0
