-- Keep images for a response. ARGV: ttl, image ttl, response, images... Returns their bytes; nil if one is not there.
local total = 0
for index = 4, #ARGV do
  local image = valid(ARGV[index])
  if not image then
    return false
  end
  total = total + image.s
end
for index = 4, #ARGV do
  redis.call('ZADD', key.pins, 0, ARGV[index] .. '/' .. ARGV[3])
  use(ARGV[index])
end
touch_all()
return total
