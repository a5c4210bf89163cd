-- Common to the scripts of the queue. KEYS as in broker/redis/keys.py, all of one slot; ARGV[1] is their ttl in ms.
--
-- Every waiting job has one entry in the stream that no runner has read yet. An entry says that there is work, so the
-- group's lag is the load; which job it is, the scores in `waiting` say, so that owners take turns. A runner that takes
-- a job reads an entry, which is pending until the job has ended: the pending entries of a consumer are its leases.
local key = {
  jobs = KEYS[1], waiting = KEYS[2], open = KEYS[3], load = KEYS[4], room = KEYS[5], turns = KEYS[6],
  waiting_of = KEYS[7], open_of = KEYS[8], heard = KEYS[9], runners = KEYS[10], reserved = KEYS[11], had = KEYS[12],
  ended = KEYS[13], deadlines = KEYS[14], takes = KEYS[15], cancels = KEYS[16],
}
local GROUP = 'runners'
local RATE_WINDOW_S = 60

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function touch_all()
  for _, name in pairs(key) do
    if name ~= key.ended then
      redis.call('PEXPIRE', name, ARGV[1])
    end
  end
end

local function wake()
  redis.call('PUBLISH', key.jobs, '')
end

-- Of an open job: o owner, b bytes, im images, q when it came, ep epoch that it is offered with, a and p what admission
-- answered; then m its member in `waiting`, or r the runner that has it, e the entry, t since when.
local function record_of(id)
  local packed = redis.call('HGET', key.open, id)
  return packed and cmsgpack.unpack(packed)
end

local function keep(id, record)
  redis.call('HSET', key.open, id, cmsgpack.pack(record))
end

local function load_number(name)
  return tonumber(redis.call('HGET', key.load, name) or 0)
end

local function ensure_group()
  if redis.call('EXISTS', key.jobs) == 0 then
    redis.call('XGROUP', 'CREATE', key.jobs, GROUP, '0', 'MKSTREAM')
    redis.call('HDEL', key.load, 'last', 'stale')
  end
end

-- Done with an entry. The one read last stays until another one is: without it Redis 7.0 knows no lag.
local function drop_entry(entry)
  redis.call('XACK', key.jobs, GROUP, entry)
  if entry == redis.call('HGET', key.load, 'last') then
    redis.call('HSET', key.load, 'stale', entry)
  else
    redis.call('XDEL', key.jobs, entry)
  end
end

local function read_entries(consumer, count)
  ensure_group()
  local command = {'XREADGROUP', 'GROUP', GROUP, consumer, 'COUNT', count, 'STREAMS', key.jobs, '>'}
  local got = redis.pcall(unpack(command))
  if got and got.err then -- somebody has removed the group
    redis.call('XGROUP', 'CREATE', key.jobs, GROUP, '0')
    got = redis.call(unpack(command))
  end
  local entries = {}
  for _, entry in ipairs(got and got[1][2] or {}) do
    entries[#entries + 1] = entry[1]
  end
  if #entries > 0 then
    local stale = redis.call('HGET', key.load, 'stale')
    if stale then
      redis.call('XDEL', key.jobs, stale)
      redis.call('HDEL', key.load, 'stale')
    end
    redis.call('HSET', key.load, 'last', entries[#entries])
  end
  return entries
end

-- Entries without a job: of jobs that ended while they waited.
local function drop_surplus(count)
  for _, entry in ipairs(read_entries('surplus', count)) do
    drop_entry(entry)
  end
end

local function enqueue(id, record, turn)
  local number = redis.call('HINCRBY', key.load, 'number', 1)
  record.m = string.format('%015d:', number) .. id
  record.r, record.e, record.t = nil, nil, nil
  redis.call('ZADD', key.waiting, turn, record.m)
  redis.call('HINCRBY', key.load, 'bytes', record.b)
  redis.call('HINCRBY', key.waiting_of, record.o, 1)
  ensure_group()
  redis.call('XADD', key.jobs, '*', 'response', id)
  keep(id, record)
end

-- It does not wait any more; its entry is the caller's.
local function remove_waiting(id, record)
  redis.call('ZREM', key.waiting, record.m)
  redis.call('HINCRBY', key.load, 'bytes', -record.b)
  redis.call('HDEL', key.reserved, id)
  if redis.call('HINCRBY', key.waiting_of, record.o, -1) <= 0 then
    redis.call('HDEL', key.waiting_of, record.o)
    redis.call('HDEL', key.turns, record.o)
  end
  record.m = nil
end

local function total_room()
  local total = 0
  for _, room in ipairs(redis.call('HVALS', key.room)) do
    total = total + room
  end
  return total
end

-- Returns nil, or `full` or `bytes`, with what a refusal says: jobs and bytes that wait, the most bytes, ends lately and
-- in how many ms. Some places and bytes beyond the bounds are for owners of whom nothing waits.
local function refusal(owner, num_bytes, max_waiting, num_reserved, max_bytes, reserved_bytes)
  local num_waiting, waiting_bytes = redis.call('ZCARD', key.waiting), load_number('bytes')
  local num_ahead = num_waiting - total_room()
  local has_any = redis.call('HEXISTS', key.waiting_of, owner) == 1
  if not has_any then
    max_waiting, max_bytes = max_waiting + num_reserved, max_bytes + reserved_bytes
  end
  local reason
  if num_ahead < 0 then
    return nil
  elseif num_ahead >= tonumber(max_waiting) then
    reason = 'full'
  elseif waiting_bytes + num_bytes > tonumber(max_bytes) then
    reason = 'bytes'
  else
    return nil
  end
  local now, first, num_ended = now_ms(), nil, 0
  local ends = redis.call('HGETALL', key.ended)
  for index = 1, #ends, 2 do
    local at = ends[index] * 1000
    if at > now - RATE_WINDOW_S * 1000 then
      first = math.min(first or at, at)
      num_ended = num_ended + ends[index + 1]
    end
  end
  return {reason, num_waiting, num_ahead, waiting_bytes, tonumber(max_bytes), num_ended, first and now - first or 0}
end

local function hear(runner)
  redis.call('ZADD', key.heard, now_ms(), runner)
end

-- Id, epoch and whether it waits of each job whose time is up, as many as one caller is to end; and when the next one's
-- will be. A job that runs has some slack, so that its runner can end it.
local function overdue_at(now, slack)
  local MAX = 200
  local overdue, next_at = {}, nil
  local listed = redis.call('ZRANGE', key.deadlines, '-inf', string.format('%d', now), 'BYSCORE', 'WITHSCORES')
  for index = 1, #listed, 2 do
    local id = listed[index]
    local record = record_of(id)
    if not record then
      redis.call('ZREM', key.deadlines, id)
    elseif record.m or listed[index + 1] + slack <= now then
      overdue[#overdue + 1] = id
      overdue[#overdue + 1] = record.ep
      overdue[#overdue + 1] = record.m and 1 or 0
      if #overdue >= 3 * MAX then
        return overdue, now -- there may be more
      end
    else
      next_at = next_at or listed[index + 1] + slack
    end
  end
  local later = redis.call('ZRANGE', key.deadlines, string.format('(%d', now), '+inf', 'BYSCORE', 'LIMIT', 0, 1,
    'WITHSCORES')
  if later[2] then
    next_at = math.min(next_at or later[2], later[2])
  end
  return overdue, next_at
end
