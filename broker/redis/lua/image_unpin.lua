-- ARGV: ttl, image ttl, response, images...
for index = 4, #ARGV do
  if redis.call('ZREM', key.pins, ARGV[index] .. '/' .. ARGV[3]) == 1 and image_of(ARGV[index]) then
    use(ARGV[index])
  end
end
touch_all()
