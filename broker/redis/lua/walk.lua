-- Some of the open jobs. ARGV: ttl, cursor, how many about.
-- Returns the next cursor, then id, runner or '', epoch, for how many ms the runner has it, whether it is heard of.
local page = redis.call('HSCAN', key.open, ARGV[2], 'COUNT', ARGV[3])
local answer, now = {page[1]}, now_ms()
for index = 1, #page[2], 2 do
  local record = cmsgpack.unpack(page[2][index + 1])
  answer[#answer + 1] = {
    page[2][index], record.r or '', record.ep, record.r and now - record.t or 0,
    record.r and redis.call('ZSCORE', key.heard, record.r) and 1 or 0,
  }
end
return answer
