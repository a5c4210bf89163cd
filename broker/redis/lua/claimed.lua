-- KEYS: 1 claim. Returns the response it stands for.
return redis.call('HGET', KEYS[1], 'response')
