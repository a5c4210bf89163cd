-- What was admitted is visible from here on. ARGV: queued event or '', ttl in ms. Returns `ok`, `void` or `gone`.
if not is_known() then
  return redis.call('EXISTS', state) == 1 and 'void' or 'gone'
end
if ensure_opened() and ARGV[1] ~= '' then
  append(ARGV[1])
end
if not get('closed')[1] then
  touch(ARGV[2])
end
wake()
return 'ok'
