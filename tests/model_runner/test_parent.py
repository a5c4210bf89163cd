"""A process below one that is killed is killed too. Real processes, no engine: that one is in ``tests/faults``."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.servers import ROOT, is_alive

# A parent with one child, started as vLLM starts its engine process, or as tests of parity do. Each says that it
# is there.
PARENT = """
import multiprocessing, sys, time

def child(asks):
    if asks:
        from model_runner.parent import end_with_parent
        end_with_parent()
    print("child", multiprocessing.current_process().pid, flush=True)
    time.sleep(60)

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[2])
    context.set_forkserver_preload(["tests.ends_with_parent"])
    process = context.Process(target=child, args=(sys.argv[1] == "asks",))
    process.start()
    process.join()
"""


def child_after_its_parent_was_killed(tmp_path, word, method="spawn"):
    """The child's id, half a second after its parent went without a word."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.Popen(
        [sys.executable, str(script), word, method],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline().split()[1])
        assert is_alive(child)
        parent.kill()
        parent.wait()
        parent.stdout.close()
    time.sleep(0.5)
    return child


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_it_does_not_outlive_its_parent(tmp_path, method):
    assert not is_alive(child_after_its_parent_was_killed(tmp_path, "asks", method))


def test_without_asking_it_would(tmp_path):
    child = child_after_its_parent_was_killed(tmp_path, "does not ask")
    assert is_alive(child)
    os.kill(child, signal.SIGKILL)


def test_a_process_that_nobody_of_ours_started_goes_on():
    done = subprocess.run(
        [sys.executable, "-c", "from model_runner.parent import end_with_parent; end_with_parent(); print('on')"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout == "on\n"
