-- A token bucket. KEYS: 1 bucket (string: when it is full again, in ms). ARGV: ms in which a token comes back, burst,
-- how many are taken. Returns 0, or in how many ms there are so many. A full bucket is no key.
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local token = tonumber(ARGV[1])
local full_at = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now) + ARGV[3] * token
local over = full_at - now - ARGV[2] * token
if over > token * 1e-6 then
  return math.ceil(over)
end
redis.call('SET', KEYS[1], string.format('%.3f', full_at), 'PX', math.ceil(full_at - now))
return 0
