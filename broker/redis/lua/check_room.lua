-- ARGV: ttl, bytes, max_waiting, max_waiting_bytes. Returns nil, or as refusal says.
return refusal(tonumber(ARGV[2]), ARGV[3], ARGV[4]) or false
