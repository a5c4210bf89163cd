-- Jobs that a runner has had for some time. ARGV: ttl, runner, for so many ms at least. Returns id and epoch of each.
local held, now, listed = {}, now_ms(), redis.call('HGETALL', key.open)
for index = 1, #listed, 2 do
  local record = cmsgpack.unpack(listed[index + 1])
  if record.r == ARGV[2] and record.t <= now - ARGV[3] then
    held[#held + 1] = listed[index]
    held[#held + 1] = record.ep
  end
end
return held
