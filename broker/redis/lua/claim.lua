-- An idempotency key. KEYS: 1 claim (hash). ARGV: response, hash of the body, ttl in ms.
-- Returns `mine`; or `theirs`, the response it stands for, the age of the claim in ms, 1 if the body is the same.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local found = redis.call('HMGET', KEYS[1], 'response', 'body', 'at')
if not found[1] then
  redis.call('HSET', KEYS[1], 'response', ARGV[1], 'body', ARGV[2], 'at', now)
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  return {'mine'}
elseif found[1] == ARGV[1] then
  return {'mine'}
end
return {'theirs', found[1], now - found[3], found[2] == ARGV[2] and 1 or 0}
