-- Jobs whose time is up, as the sweep says them. ARGV: ttl, slack in ms.
-- Returns in how many ms the next one's will be (or -1), then id, epoch and whether it waits of each.
local now = now_ms()
local overdue, next_at = overdue_at(now, ARGV[2])
return {next_at and math.max(next_at - now, 0) or -1, overdue}
