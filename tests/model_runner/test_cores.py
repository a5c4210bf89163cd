"""Cores are left to an engine, and taken back."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from model_runner import cores
from model_runner.cores import leave_cores, use_all_cores

pytestmark = pytest.mark.skipif(len(cores.ALL_CORES) < 2, reason="needs two cores")


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    yield
    use_all_cores()


def cores_of_all_threads() -> set[frozenset[int]]:
    return {frozenset(os.sched_getaffinity(int(thread.name))) for thread in Path("/proc/self/task").iterdir()}


def test_every_thread_keeps_to_what_is_left() -> None:
    done = threading.Event()
    other = threading.Thread(target=done.wait)
    other.start()
    leave_cores(1)
    found = cores_of_all_threads()
    done.set()
    other.join()
    assert found == {frozenset(sorted(cores.ALL_CORES)[1:])}
    use_all_cores()
    assert cores_of_all_threads() == {cores.ALL_CORES}


def test_where_nothing_is_left_all_cores_are_used() -> None:
    leave_cores(len(cores.ALL_CORES))
    assert cores_of_all_threads() == {cores.ALL_CORES}
