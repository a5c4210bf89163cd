-- A page of events. ARGV: first sequence number, how many. Returns n, closed, the entries; nil if it is not there.
if not is_known() then
  return false
end
local found = get('n', 'closed')
-- Any integer may come; one with an exponent, which is what Lua makes of 1e14, or beyond 64 bits is no id.
local first = string.format('%.0f-0', math.min(ARGV[1] + 1, 2 ^ 53))
return {found[1], found[2] or '', redis.call('XRANGE', events, first, '+', 'COUNT', ARGV[2])}
