-- A runner's right to work on it. ARGV: runner, epoch that it was offered with, ttl in ms, id of the response.
-- Returns `ok`, job, attempt, n, age in ms, time left in ms or ''; or `over`, `stale`, `cancelled`, `overdue`.
if not is_known() then
  return {'over'}
end
local found = get('closed', 'runner', 'epoch', 'cancel', 'deadline', 'attempt')
local now = now_ms()
local epoch = tonumber(found[3])
if found[1] then
  return {'over'}
end
-- The same call again, because its answer was lost, gets the same answer.
if not (epoch == ARGV[2] + 1 and found[2] == ARGV[1]) then
  if epoch ~= tonumber(ARGV[2]) then
    return {'stale'}
  elseif found[4] then
    return {'cancelled'}
  elseif found[5] ~= '' and tonumber(found[5]) <= now then
    return {'overdue'}
  end
  ensure_opened()
  local attempt = redis.call('HINCRBY', state, 'attempt', 1)
  redis.call('HSET', state, 'epoch', epoch + 1, 'runner', ARGV[1], 'published', 0)
  if attempt > 1 then
    append('{"type":"response.restarted","response_id":' .. cjson.encode(ARGV[4]) .. ',"attempt":' .. attempt .. '}')
  end
  touch(ARGV[3])
  wake()
end
found = get('job', 'attempt', 'n', 'at', 'deadline')
local left = found[5] == '' and '' or string.format('%d', math.max(found[5] - now, 0))
return {'ok', found[1], found[2], found[3], now - found[4], left}
