-- The state, and life for what is open and visible. ARGV: ttl in ms.
-- Returns `gone`, `void`, `closed` or `open`; then runner, epoch, cancel, opened, idempotency key and the job.
local found = get('job', 'void', 'closed', 'runner', 'epoch', 'cancel', 'opened', 'claim')
if found[2] then
  return {'void'}
elseif not found[1] then
  return {'gone'}
elseif found[3] then
  return {'closed'}
end
if found[7] then
  touch(ARGV[1])
end
return {'open', found[4], found[5], found[6] or '', found[7] or '', found[8], found[1]}
