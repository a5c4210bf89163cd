"""The command line, and the composition of gateway, broker and runner."""
