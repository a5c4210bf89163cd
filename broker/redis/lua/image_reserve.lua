-- Room for a file. ARGV: ttl, image ttl, id, bytes, owner, token, ref, most bytes of all.
-- Returns `ok`, the file's token, and a list of id and token of each file that has to go; or `full`, nothing changed.
local id, size, most = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[8])
local answer = drop_expired(100)
local image = image_of(id)
if not image then
  local free, evicted, first = most - tonumber(redis.call('GET', key.total) or 0), {}, 0
  while free < size do
    local page = redis.call('ZRANGE', key.used, first, first + 49)
    if #page == 0 then
      return {'full', '', answer}
    end
    for _, other in ipairs(page) do
      if free < size and not is_pinned(other) then
        evicted[#evicted + 1] = other
        free = free + image_of(other).s
      end
    end
    first = first + 50
  end
  for _, other in ipairs(evicted) do
    answer[#answer + 1] = other
    answer[#answer + 1] = drop(other).g
  end
  image = {s = size, g = ARGV[6], o = {}, ref = ARGV[7]}
  redis.call('INCRBY', key.total, size)
end
image.o[ARGV[5]] = true
redis.call('HSET', key.index, id, cmsgpack.pack(image))
use(id)
touch_all()
return {'ok', image.g, answer}
