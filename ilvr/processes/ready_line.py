"""The one line on standard output, where a disk may be full."""

import contextlib
import os
import sys


def tell_ready(line: str) -> None:
    """Print it if that is possible; that nobody can read it is no reason not to serve."""
    try:
        print(line, flush=True)
    except OSError:
        # What was not written stays in the buffer, and to fail to write it at the end would make the exit status 120.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
