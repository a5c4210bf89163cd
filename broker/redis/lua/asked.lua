-- Jobs of a runner whose end is asked for. ARGV: ttl, runner.
local ids, listed = {}, redis.call('HGETALL', key.cancels)
for index = 1, #listed, 2 do
  if listed[index + 1] == ARGV[2] then
    ids[#ids + 1] = listed[index]
  end
end
return ids
