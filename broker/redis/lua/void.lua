-- An id that was claimed and not opened never will be. ARGV: ttl in ms. Returns `void`, or `open` if it was.
if get('opened')[1] then
  return 'open'
end
redis.call('DEL', state)
redis.call('HSET', state, 'void', 1)
redis.call('PEXPIRE', state, ARGV[1])
return 'void'
