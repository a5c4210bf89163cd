-- KEYS: 1 file (hash). ARGV: token, ttl in ms, then media type and bytes if they come along.
-- Returns 0 if the bytes have to come along.
if redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('HSET', KEYS[1], 'token', ARGV[1])
elseif ARGV[4] then
  redis.call('HSET', KEYS[1], 'token', ARGV[1], 'media_type', ARGV[3], 'data', ARGV[4])
else
  return 0
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
