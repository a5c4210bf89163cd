-- KEYS: 1 file. ARGV: its token; a file that was put again since has another one.
if redis.call('HGET', KEYS[1], 'token') == ARGV[1] then
  redis.call('UNLINK', KEYS[1])
end
