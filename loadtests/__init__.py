"""Load on a running server, and whether it kept its objectives: ``python -m loadtests --help``."""
