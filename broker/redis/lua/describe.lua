-- What an ending is made of. ARGV: ttl in ms.
-- Returns job, n, epoch, age in ms; nil if it has ended or is not there.
if not is_known() or get('closed')[1] then
  return false
end
if ensure_opened() then
  touch(ARGV[1]) -- its end may never come: who asks may die now
end
local found = get('job', 'n', 'epoch', 'at')
return {found[1], found[2], found[3], now_ms() - found[4]}
