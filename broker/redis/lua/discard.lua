-- Forget a response that was not admitted. Returns 0 if it is visible: somebody works on it.
if get('opened')[1] then
  return 0
end
if is_known() then
  redis.call('DEL', state)
end
return 1
