-- KEYS: 1 file. ARGV: ttl in ms. Returns media type and bytes; nil if it is not there.
if redis.call('PEXPIRE', KEYS[1], ARGV[1]) == 0 then
  return false
end
return redis.call('HMGET', KEYS[1], 'media_type', 'data')
