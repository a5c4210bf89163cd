-- ARGV: ttl, image ttl, id, owner or nothing for all. Returns token and ref of its file; nil if it is not there.
local image = valid(ARGV[3])
if not image or (ARGV[4] and not image.o[ARGV[4]]) then
  return false
end
use(ARGV[3])
touch_all()
return {image.g, image.ref}
