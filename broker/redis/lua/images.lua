-- Common to the scripts of the image index. KEYS: 1 index (hash), 2 used (zset: last use in ms), 3 pins (zset of
-- image/response, all of one score), 4 total (bytes). ARGV[1] is the ttl of these keys, ARGV[2] that of an image.
--
-- Of an image: s bytes, g token of its file, o owners, ref.
local key = {index = KEYS[1], used = KEYS[2], pins = KEYS[3], total = KEYS[4]}

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function touch_all()
  for _, name in pairs(key) do
    redis.call('PEXPIRE', name, ARGV[1])
  end
end

local function use(id)
  redis.call('ZADD', key.used, now_ms(), id)
end

local function is_pinned(id)
  return #redis.call('ZRANGE', key.pins, '[' .. id .. '/', '(' .. id .. '0', 'BYLEX', 'LIMIT', 0, 1) > 0
end

local function image_of(id)
  local packed = redis.call('HGET', key.index, id)
  return packed and cmsgpack.unpack(packed)
end

local function drop(id)
  local image = image_of(id)
  redis.call('HDEL', key.index, id)
  redis.call('ZREM', key.used, id)
  if image and redis.call('DECRBY', key.total, image.s) <= 0 then
    redis.call('DEL', key.total)
  end
  return image
end

-- An image that is there; nil once it was not used for its time, unless it is pinned.
local function valid(id)
  local used_at = tonumber(redis.call('ZSCORE', key.used, id) or 0)
  if used_at < now_ms() - ARGV[2] and not is_pinned(id) then
    return nil
  end
  return image_of(id)
end

-- Id and token of the files of images that were not used for their time, which are dropped from the index.
local function drop_expired(max)
  local dropped = {}
  local before = string.format('(%d', now_ms() - ARGV[2])
  for _, id in ipairs(redis.call('ZRANGE', key.used, '-inf', before, 'BYSCORE', 'LIMIT', 0, max)) do
    if not is_pinned(id) then
      local image = drop(id)
      dropped[#dropped + 1] = id
      dropped[#dropped + 1] = image and image.g or ''
    end
  end
  return dropped
end
