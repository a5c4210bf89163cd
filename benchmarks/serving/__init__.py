"""The service beside what a user would run instead, over HTTP, in one run."""
