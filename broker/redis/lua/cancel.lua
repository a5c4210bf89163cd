-- Returns `gone`, or as ask_cancel says.
if not is_known() then
  return {'gone'}
end
return ask_cancel()
