"""One module per ``ilvr`` command."""
