-- Room for a file. ARGV: ttl, image ttl, id, bytes, owner, token, ref, most bytes of all, bytes beyond these for owners
-- of whom no image is pinned.
-- Returns `ok`, the file's token, and a list of id and token of each file that has to go; or `full`, nothing changed.
local id, size, owner, most = ARGV[3], tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[8])

-- What has to go before it fits; nil if pinned files leave no place for it.
local function in_its_way(most_bytes)
  local free, found, first = most_bytes - tonumber(redis.call('GET', key.total) or 0), {}, 0
  while free < size do
    local page = redis.call('ZRANGE', key.used, first, first + 49)
    if #page == 0 then
      return nil
    end
    for _, other in ipairs(page) do
      if free < size and not is_pinned(other) then
        found[#found + 1] = other
        free = free + image_of(other).s
      end
    end
    first = first + 50
  end
  return found
end

local function has_pinned()
  for _, pin in ipairs(redis.call('ZRANGE', key.pins, 0, -1)) do
    local pinned = image_of(string.match(pin, '^[^/]*'))
    if pinned and pinned.o[owner] then
      return true
    end
  end
  return false
end

local answer = drop_expired(100)
local image = image_of(id)
if not image then
  local evicted = in_its_way(most)
  if not evicted and not has_pinned() then
    evicted = in_its_way(most + ARGV[9])
  end
  if not evicted then
    return {'full', '', answer}
  end
  for _, other in ipairs(evicted) do
    answer[#answer + 1] = other
    answer[#answer + 1] = drop(other).g
  end
  image = {s = size, g = ARGV[6], o = {}, ref = ARGV[7]}
  redis.call('INCRBY', key.total, size)
end
image.o[owner] = true
redis.call('HSET', key.index, id, cmsgpack.pack(image))
use(id)
touch_all()
return {'ok', image.g, answer}
