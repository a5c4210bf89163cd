-- Statuses of the runners heard of. ARGV: ttl, silence in ms.
local statuses = {}
local silent_since = math.max(now_ms() - ARGV[2], 0)
for _, runner in ipairs(redis.call('ZRANGE', key.heard, '(' .. string.format('%d', silent_since), '+inf', 'BYSCORE')) do
  statuses[#statuses + 1] = redis.call('HGET', key.runners, runner) or nil
end
return statuses
