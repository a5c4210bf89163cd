-- Number and append events, all or none. ARGV: epoch, the least n, token, whether the last one is terminal (1 or 0),
-- ttl in ms while open, ttl in ms after the end, how many were published under this lease before or '',
-- token ids or '', `deltas` if there is nothing else, events...
-- Returns `ok`, n and the idempotency key; `lost` if the epoch is over; `behind` if Redis has forgotten events that it
-- once had.
local FIRST = 10
local found = get('epoch', 'n', 'token', 'closed', 'claim', 'published')
if found[3] == ARGV[3] then
  return {'ok', found[2], found[5]} -- the same call again, because its answer was lost
elseif not is_known() or found[1] ~= ARGV[1] then
  return {'lost'}
end
-- A caller that got no answer at all says how far it had come, so what is there already is passed over.
local num_there = ARGV[7] == '' and 0 or math.max((found[6] or 0) - ARGV[7], 0)
local num_new = #ARGV - FIRST + 1 - num_there
if num_there > 0 and num_new <= 0 then
  return {'ok', found[2], found[5]}
elseif found[4] then
  return {'lost'}
elseif tonumber(found[2]) < tonumber(ARGV[2]) then
  return {'behind'}
end
for index = FIRST + num_there, #ARGV do
  append(ARGV[index])
end
redis.call('HSET', state, 'token', ARGV[3])
redis.call('HINCRBY', state, 'published', num_new)
if ARGV[4] == '1' then
  redis.call('HSET', state, 'closed', 1)
  if ARGV[8] ~= '' then
    redis.call('HSET', state, 'tokens', ARGV[8])
  end
  redis.call('HDEL', state, 'created')
  touch(ARGV[6])
else
  touch(ARGV[5])
end
wake(ARGV[9])
return {'ok', get('n')[1], found[5]}
