-- KEYS: 3 readers. ARGV: reader. Returns `read` and for how many ms yet by another's word; else as cancel.lua.
if not is_known() then
  return {'gone'}
end
local now, read_until = now_ms(), 0
if not get('closed')[1] then
  local readers = redis.call('HGETALL', KEYS[3])
  for index = 1, #readers, 2 do
    if readers[index] ~= ARGV[1] then
      read_until = math.max(read_until, tonumber(readers[index + 1]))
    end
  end
end
if read_until > now then
  return {'read', read_until - now}
end
return ask_cancel()
