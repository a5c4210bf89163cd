-- Work for a runner. ARGV: ttl, runner, room, token of this call.
-- Returns in how many ms a job that is reserved for another may be taken (or -1), then id and epoch of each job.
local runner, room, now = ARGV[2], tonumber(ARGV[3]), now_ms()
local before = redis.call('HGET', key.takes, runner)
if before then
  before = cmsgpack.unpack(before)
  if before.token == ARGV[4] then
    return before.answer -- the same call again, because its answer was lost
  end
end
hear(runner)

local reserved = {}
local listed = redis.call('HGETALL', key.reserved)
for index = 1, #listed, 2 do
  local until_ms, holder = string.match(listed[index + 1], '^(%d+) (.*)$')
  if tonumber(until_ms) > now then
    reserved[listed[index]] = {holder = holder, until_ms = tonumber(until_ms)}
  else
    redis.call('HDEL', key.reserved, listed[index])
  end
end

local answer, picked, soonest = {-1}, {}, nil
local function pick(id, member)
  picked[#picked + 1] = {id = id, member = member}
end
for id, right in pairs(reserved) do
  if right.holder == runner and #picked < room then
    local record = record_of(id)
    if record and record.m then
      pick(id, record.m)
    end
  end
end
local first, PAGE = 0, 64
while #picked < room do
  local members = redis.call('ZRANGE', key.waiting, first, first + PAGE - 1)
  for _, member in ipairs(members) do
    local id = string.sub(member, 17)
    local right = reserved[id]
    if not right then
      if #picked < room then
        pick(id, member)
      end
    elseif right.holder ~= runner then
      soonest = math.min(soonest or right.until_ms, right.until_ms)
    end
  end
  if #members < PAGE then
    break
  end
  first = first + PAGE
end

if #picked > 0 then
  local entries = read_entries(runner, #picked)
  local turn = load_number('turn')
  for index, job in ipairs(picked) do
    local record = record_of(job.id)
    turn = math.max(turn, tonumber(redis.call('ZSCORE', key.waiting, job.member)))
    remove_waiting(job.id, record)
    record.r, record.e, record.t = runner, entries[index], now
    keep(job.id, record)
    for _, image in ipairs(record.im) do
      redis.call('ZADD', key.had, now, image .. '/' .. runner)
    end
    answer[#answer + 1] = job.id
    answer[#answer + 1] = record.ep
  end
  redis.call('HSET', key.load, 'turn', string.format('%d', turn))
  redis.call('ZREMRANGEBYRANK', key.had, 0, -10001)
  redis.call('HSET', key.takes, runner, cmsgpack.pack({token = ARGV[4], answer = answer}))
elseif soonest then
  answer[1] = math.max(soonest - now, 1)
end
redis.call('HSET', key.room, runner, room - #picked)
touch_all()
return answer
