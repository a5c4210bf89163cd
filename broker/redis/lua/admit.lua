-- One more job, or a refusal. ARGV: ttl, id, owner, bytes, max_open or '', deadline in ms or '', max_waiting,
-- num_reserved, max_waiting_bytes, reserved_bytes, for how many ms a runner's images count, for how many ms a job is
-- reserved, images...
-- Returns `ok`, jobs ahead, position; or `owner` and how many are open; or as refusal says.
local id, owner, num_bytes = ARGV[2], ARGV[3], tonumber(ARGV[4])
local record = record_of(id)
if record then
  return {'ok', record.a, record.p} -- the same call again, because its answer was lost
end
local num_open = tonumber(redis.call('HGET', key.open_of, owner) or 0)
if ARGV[5] ~= '' and num_open >= tonumber(ARGV[5]) then
  return {'owner', num_open}
end
local refused = refusal(owner, num_bytes, ARGV[7], ARGV[8], ARGV[9], ARGV[10])
if refused then
  return refused
end

local now, room = now_ms(), total_room()
record = {o = owner, b = num_bytes, q = now, ep = 0, im = {}}
for index = 13, #ARGV do
  record.im[#record.im + 1] = ARGV[index]
end
-- Owners take turns: each job of an owner goes into the turn after the one of his job before.
local turn = math.max(load_number('turn'), tonumber(redis.call('HGET', key.turns, owner) or 0)) + 1
redis.call('HSET', key.turns, owner, string.format('%d', turn))
record.a = redis.call('ZCARD', key.waiting) - room
enqueue(id, record, turn)
record.p = math.max(redis.call('ZRANK', key.waiting, record.m) - room, 0) + 1
keep(id, record)
redis.call('HINCRBY', key.open_of, owner, 1)
if ARGV[6] ~= '' then
  redis.call('ZADD', key.deadlines, ARGV[6], id)
end

-- A runner that had its images lately has the first right to it for a moment, if there is room that no other job has
-- a right to.
if #record.im > 0 and room > 0 then
  redis.call('ZREMRANGEBYSCORE', key.had, '-inf', now - ARGV[11])
  local promised, reserved = {}, redis.call('HGETALL', key.reserved)
  for index = 1, #reserved, 2 do
    local until_ms, runner = string.match(reserved[index + 1], '^(%d+) (.*)$')
    if tonumber(until_ms) > now then
      promised[runner] = (promised[runner] or 0) + 1
    end
  end
  local best, best_hits, rooms = nil, 0, redis.call('HGETALL', key.room)
  for index = 1, #rooms, 2 do
    local runner, hits = rooms[index], 0
    if rooms[index + 1] - (promised[runner] or 0) > 0 then
      for _, image in ipairs(record.im) do
        hits = hits + (redis.call('ZSCORE', key.had, image .. '/' .. runner) and 1 or 0)
      end
    end
    if hits > best_hits then
      best, best_hits = runner, hits
    end
  end
  if best then
    redis.call('HSET', key.reserved, id, string.format('%d ', now + ARGV[12]) .. best)
  end
end
touch_all()
wake()
return {'ok', record.a, record.p}
