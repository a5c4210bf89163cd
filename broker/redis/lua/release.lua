-- Take it from a runner. ARGV: runner, epoch that it was offered with; `lost` or `given` back, or `unused` if nobody has
-- worked on it.
-- Returns `ok`, the new epoch, attempts that count, cancel; `gone` if it has ended; `stale` if it moved on.
if not is_known() or get('closed')[1] then
  return {'gone'}
end
local found = get('epoch', 'runner')
local epoch, offered = tonumber(found[1]), tonumber(ARGV[2])
local is_leased = epoch == offered + 1 and found[2] == ARGV[1]
if epoch == offered or is_leased then
  redis.call('HSET', state, 'epoch', offered + 2, 'runner', '')
  redis.call('HDEL', state, 'token')
  if is_leased and ARGV[3] == 'given' then
    redis.call('HINCRBY', state, 'given', 1)
  elseif is_leased and ARGV[3] == 'unused' then
    redis.call('HINCRBY', state, 'attempt', -1)
  end
elseif not (epoch == offered + 2 and found[2] == '') then
  return {'stale'}
end
found = get('attempt', 'given', 'cancel')
return {'ok', offered + 2, found[1] - found[2], found[3] or ''}
