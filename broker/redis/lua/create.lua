-- A response that nobody can see yet. ARGV: job, created event, timeout in ms or '', ttl in ms,
-- idempotency key or ''.
-- Returns the status, `ok` or `void`, and the deadline in ms or ''.
if redis.call('EXISTS', state) == 1 then
  return {is_known() and 'ok' or 'void', redis.call('HGET', state, 'deadline') or ''}
end
local now = now_ms()
local deadline = ARGV[3] == '' and '' or string.format('%d', now + ARGV[3])
redis.call('HSET', state, 'job', ARGV[1], 'created', ARGV[2], 'at', now, 'deadline', deadline, 'n', 0, 'runner', '',
  'epoch', 0, 'attempt', 0, 'given', 0, 'claim', ARGV[5])
redis.call('PEXPIRE', state, ARGV[4])
return {'ok', deadline}
