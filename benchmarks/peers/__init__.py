"""What a user would run instead of this service, kept to be measured beside it."""
