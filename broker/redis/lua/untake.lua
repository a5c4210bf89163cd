-- The call with this token was abandoned: it takes no more, if it comes yet. ARGV: ttl, runner, token.
-- Returns id and epoch of each job that it took.
redis.call('HDEL', key.room, ARGV[2])
local before = redis.call('HGET', key.takes, ARGV[2])
if before then
  before = cmsgpack.unpack(before)
  if before.token == ARGV[3] then
    table.remove(before.answer, 1)
    return before.answer
  end
end
redis.call('HSET', key.takes, ARGV[2], cmsgpack.pack({token = ARGV[3], answer = {-1}}))
touch_all()
return {}
