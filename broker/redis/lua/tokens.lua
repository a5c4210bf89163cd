-- What was generated for it, or '' if nobody told; nil if it is not there.
if not is_known() then
  return false
end
return get('tokens')[1] or ''
