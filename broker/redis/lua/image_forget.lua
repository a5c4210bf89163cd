-- Its file was lost. ARGV: ttl, image ttl, id, token of the file.
local image = image_of(ARGV[3])
if image and image.g == ARGV[4] then
  drop(ARGV[3])
end
