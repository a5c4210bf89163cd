"""What takes long to make and is shared by several folders of tests, and what holds for all of them."""

import logging
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.logs import OURS
from tests.open_connections import left_open, watch
from tests.servers import Server, running_server

GOLDEN = Path(__file__).parent / "golden"
GOLDEN_NAMES = ("b", "c")

# Files go to the workers in this order, or one of them would have two minutes of a single file left at the end.
LONGEST_FIRST = ("loadtests", "e2e", "parity", "faults", "soak")

# A shell without job control makes what it starts in the background ignore Ctrl-C, and all that is started from there.
# The tests send it and mean it.
signal.signal(signal.SIGINT, signal.default_int_handler)

watch()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def turn(item: pytest.Item) -> int:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        return LONGEST_FIRST.index(folder) if folder in LONGEST_FIRST else len(LONGEST_FIRST)

    items.sort(key=turn)


@pytest.fixture(autouse=True)
def log_levels_are_left() -> Iterator[None]:
    """Or pytest would keep every line of every later test, which those that measure memory or time would pay for."""
    yield
    changed = [name for name in OURS if logging.getLogger(name).level != logging.NOTSET]
    assert not changed, f"this test configures logs ({', '.join(changed)}): see tests/kept_logging.py"


@pytest.fixture(autouse=True)
def no_connection_is_left_open() -> Iterator[None]:
    """Set up first, so that the loop of an asynchronous test is closed before this looks."""
    yield
    found = [left_open.pop() for _ in range(len(left_open))]
    assert not found, f"open when the event loop was closed: {'; '.join(found)}"


@pytest.fixture(scope="session")
def golden_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoint folders by name; their weights are verified by hash as they are made."""
    out = tmp_path_factory.mktemp("golden")
    subprocess.run([sys.executable, str(GOLDEN / "build_ckpts.py"), str(out)], check=True, capture_output=True)
    return {name: out / f"ckpt-{name}" for name in GOLDEN_NAMES}


@pytest.fixture(scope="session")
def golden_server(golden_folders: dict[str, Path]) -> Iterator[Server]:
    """A server on golden checkpoint b, which never ends a text by itself and begins block after block."""
    with running_server(
        "--model", str(golden_folders["b"]), "--dtype", "float32", ILVR_SERVICE_DISCONNECT_GRACE_S="0.3"
    ) as server:
        yield server
