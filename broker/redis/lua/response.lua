-- Common to the scripts of one response. KEYS: 1 state (hash), 2 events (stream).
--
-- Fields of the state: job, created (its first event, encoded), at and deadline (ms), n (number of events), opened,
-- void, closed, cancel, claim (idempotency key), runner, epoch, attempt, given (attempts that were given back),
-- published (events under this lease), token (of the last append), tokens (ids generated, once it is closed).
-- `epoch` grows with every lease and every release: who knows it knows what the state was.
local state, events = KEYS[1], KEYS[2]

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function get(...)
  return redis.call('HMGET', state, ...)
end

-- Whether there is such a response; one that was made void never was.
local function is_known()
  local found = get('job', 'void')
  return found[1] and not found[2]
end

local function touch(ttl_ms)
  redis.call('PEXPIRE', state, ttl_ms)
  redis.call('PEXPIRE', events, ttl_ms)
end

-- The id of an entry is the sequence number plus one: the smallest id that a stream takes is 0-1, not 0-0.
local first, told = nil, {}

local function append(event)
  local number = redis.call('HINCRBY', state, 'n', 1)
  first = first or number
  told[#told + 1] = event
  redis.call('XADD', events, 'MAXLEN', '~', 100000, number .. '-0', 'e', event)
end

-- Tells followers what was appended, a line each after two that say the kind (`deltas` if that is all) and the sequence
-- number of the first; or nothing, if it is so much that each had better read it when it can.
local function wake(kind)
  local lines = table.concat(told, '\n')
  if #lines > 65536 then
    redis.call('PUBLISH', events, '')
  elseif first then
    redis.call('PUBLISH', events, (kind or '') .. '\n' .. (first - 1) .. '\n' .. lines)
  end
end

-- The first event is appended by whoever comes first: the gateway after admission, or a runner before it got so far.
local function ensure_opened()
  if redis.call('HSETNX', state, 'opened', 1) == 1 then
    append(redis.call('HGET', state, 'created'))
    return true
  end
  return false
end

-- Returns `waiting` or `running`, the runner and the epoch; or `closed`.
local function ask_cancel()
  local found = get('closed', 'runner', 'epoch')
  if found[1] then
    return {'closed'}
  end
  redis.call('HSET', state, 'cancel', 1)
  return {found[2] == '' and 'waiting' or 'running', found[2], found[3]}
end
