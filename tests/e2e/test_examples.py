"""The scripts in ``examples/``, as a user runs them, on the embedded model."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import ROOT, Server

# What each has to print, with the embedded model behind it.
PRINTED = {
    "ask.py": r"answer ([UDLR]+), shortest path \1, 8 latent steps",
    "background.py": r"is queued\n.* is (queued|in_progress|cancelled|completed)\n.* answers [UDLR]+\n",
    "many_at_once.py": r"3[12] of 32 mazes solved in \d",
    "same_picture.py": r"latents on: ([UDLR]+), 8 .*\nlatents off: .* 0 latent steps.*\nlatents on: \1, 8 ",
    "stream.py": r"\[8 latent steps in [\d.]+ ms, full\]\n.*\nanswer [UDLR]+",
}


def test_all_of_them_are_run() -> None:
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == set(PRINTED)


@pytest.mark.parametrize("name", PRINTED)
def test_an_example(name: str, maze_server: Server) -> None:
    environment = {**os.environ, "ILVR_URL": maze_server.url}
    done = subprocess.run(
        [sys.executable, Path("examples", name)], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert re.search(PRINTED[name], done.stdout), done.stdout
