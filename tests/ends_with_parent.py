"""Whoever imports this is killed when the process that started it is gone.

Engines are forked from one that does, and end with it (``model_runner.parent``).
"""

import ctypes
import signal

from model_runner.parent import PR_SET_PDEATHSIG

ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
