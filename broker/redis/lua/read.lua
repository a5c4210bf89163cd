-- A page of events. ARGV: first sequence number, how many. Returns n, closed, the entries; nil if it is not there.
if not is_known() then
  return false
end
local found = get('n', 'closed')
return {found[1], found[2] or '', redis.call('XRANGE', events, (ARGV[1] + 1) .. '-0', '+', 'COUNT', ARGV[2])}
