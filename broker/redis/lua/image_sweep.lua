-- ARGV: ttl, image ttl, cursor. Returns the id and token of files that have to go; the next cursor; some of the pins.
local dropped = drop_expired(100)
local page = redis.call('ZSCAN', key.pins, ARGV[3], 'COUNT', 50)
local pins = {}
for index = 1, #page[2], 2 do
  pins[#pins + 1] = page[2][index]
end
if #pins > 0 then
  touch_all()
end
return {dropped, page[1], pins}
