"""Which cores this process runs on, beside an engine process that computes on a CPU.

The engine wakes this process with every step. Linux then likes to run it where it was woken, which is the core that
the engine computes on, and both wait for each other.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

ALL_CORES = frozenset(os.sched_getaffinity(0))


def use_all_cores() -> None:
    """As when this process was started. To be called before another process is started, which inherits its cores."""
    _keep_to(ALL_CORES)


def leave_cores(num_threads: int) -> None:
    """Keep to the cores that so many threads of an engine leave; to all, where they leave none."""
    _keep_to(sorted(ALL_CORES)[num_threads:] or ALL_CORES)


def _keep_to(cores: Iterable[int]) -> None:
    """All threads of this process: those that start later inherit it."""
    for thread in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):  # it has ended
            os.sched_setaffinity(int(thread.name), cores)
