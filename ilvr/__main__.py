"""``python -m ilvr``: the same as the ``ilvr`` command."""

import sys

from ilvr.cli import main

if __name__ == "__main__":
    sys.exit(main())
