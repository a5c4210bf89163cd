-- What nobody will finish. ARGV: ttl, interval, silence, grace, slack, all in ms; 1 to sweep in any case; for
-- how many ms a runner's images count.
-- Returns nil if another process has just swept; else three lists: runner, id and epoch of each job of a silent runner;
-- id and epoch of each job that no runner could start in time; id, epoch and whether it waits of each one whose time is
-- up. All stay as they are until somebody has done something about them, so a sweep that dies is followed by another.
local MAX = 200
local MIN_SWEEPS = 5
local now = now_ms()
local sweeps = {} -- the times of the last few, the oldest first
for at in string.gmatch(redis.call('HGET', key.load, 'sweeps') or '', '%d+') do
  sweeps[#sweeps + 1] = tonumber(at)
end
local last = sweeps[#sweeps] or 0
local is_early = now - last < tonumber(ARGV[2]) and now >= last
if is_early and ARGV[6] == '0' then
  return false
end
-- Who has not been heard of is silent only if there were sweeps enough since: while Redis was away or paused, or nobody
-- swept, there was nobody to hear either. Counted in sweeps, and not in time, a slow machine is slow for all.
if not is_early then
  sweeps[#sweeps + 1] = now
  if #sweeps > MIN_SWEEPS then
    table.remove(sweeps, 1)
  end
  redis.call('HSET', key.load, 'sweeps', table.concat(sweeps, ' '))
end
local watched_since = #sweeps == MIN_SWEEPS and sweeps[1] or 0

local lost, unserved = {}, {}
local silent = {}
local is_any_silent = false
local limit = math.max(math.min(now - ARGV[3], watched_since), 0) -- who said farewell was heard at 0
for _, runner in ipairs(redis.call('ZRANGE', key.heard, '-inf', string.format('%d', limit), 'BYSCORE')) do
  silent[runner] = 0
  is_any_silent = true
  redis.call('HDEL', key.runners, runner)
  redis.call('HDEL', key.room, runner)
end
if is_any_silent then
  local listed = redis.call('HGETALL', key.open)
  for index = 1, #listed, 2 do
    local record = cmsgpack.unpack(listed[index + 1])
    if record.r and silent[record.r] then
      silent[record.r] = silent[record.r] + 1
      if #lost < 3 * MAX then
        lost[#lost + 1] = record.r
        lost[#lost + 1] = listed[index]
        lost[#lost + 1] = record.ep
      end
    end
  end
  for runner, num_leases in pairs(silent) do
    if num_leases == 0 then
      redis.call('ZREM', key.heard, runner)
      redis.call('HDEL', key.takes, runner)
      redis.pcall('XGROUP', 'DELCONSUMER', key.jobs, GROUP, runner)
    end
  end
end

local grace = tonumber(ARGV[4])
if load_number('ready_at') < math.min(now - grace, watched_since) then
  for _, member in ipairs(redis.call('ZRANGE', key.waiting, 0, MAX - 1)) do
    local id = string.sub(member, 17)
    local record = record_of(id)
    if record and now - record.q > grace then
      unserved[#unserved + 1] = id
      unserved[#unserved + 1] = record.ep
    end
  end
end

local overdue = overdue_at(now, ARGV[5])

if redis.call('ZCARD', key.waiting) == 0 and redis.call('EXISTS', key.jobs) == 1 then
  drop_surplus(MAX)
end
redis.call('ZREMRANGEBYSCORE', key.had, '-inf', now - ARGV[7])
if redis.call('HLEN', key.open) > 0 then
  touch_all()
end
redis.call('PEXPIRE', key.load, ARGV[1])
return {lost, unserved, overdue}
