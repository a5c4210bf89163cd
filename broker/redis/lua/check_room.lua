-- ARGV: ttl, owner, bytes, max_waiting, num_reserved, max_waiting_bytes, reserved_bytes.
-- Returns nil, or as refusal says.
return refusal(ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5], ARGV[6], ARGV[7]) or false
