-- The job; nil if it is not there.
if not is_known() then
  return false
end
return redis.call('HGET', state, 'job')
