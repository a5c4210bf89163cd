"""A process that does not outlive the one that started it."""

import ctypes
import multiprocessing
import signal
import sys

PR_SET_PDEATHSIG = 1  # prctl(2)


def end_with_parent() -> None:
    """In a process that ``multiprocessing`` started: be killed when its parent is gone, however it went.

    vLLM's engine process ends when it is told to, which a parent that was killed does not do: it would keep its cores,
    its memory and its GPU for ever. Elsewhere, and where the system is not Linux, this does nothing.
    """
    parent = multiprocessing.parent_process()
    if parent is None or sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if not parent.is_alive():  # it went before the call, which then waits for a death that was
        signal.raise_signal(signal.SIGKILL)
