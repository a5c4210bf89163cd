"""Two minutes of load without a server: one is started, with the embedded model, and leaves nothing behind."""

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.servers import ROOT


@pytest.mark.timeout(400)
def test_a_load_on_a_server_of_its_own(tmp_path):
    command = [sys.executable, "-m", "loadtests", "--profile", "smoke", "--out", str(tmp_path / "out")]
    mark = f"ILVR_TEST_MARK={tmp_path}"  # which all processes of it inherit
    name, value = mark.split("=", 1)
    seen = set()
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, name: value}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as load:
        for line in load.stdout:
            seen |= processes_with(mark)
            said = line
        assert load.wait() in (0, 1), said  # 1: an objective of a quieter machine is broken
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["requests"]["failed"] == results["requests"]["unfinished"] == 0, said
    assert results["server"]["runners"][0]["model"] == "maze-tiny"
    assert results["requests"]["by_kind"].keys() >= {"json", "form", "stream", "chat", "chat_stream", "cancel"}
    assert results["metrics"]["latent_block"]["count"] > 50
    assert len(seen) > 2  # the load, its server and the server's engine
    assert processes_with(mark) == set()


def processes_with(mark: str) -> set[str]:
    found = set()
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it has ended, or is another user's
            if mark.encode() in environment.read_bytes().split(b"\0"):
                found.add(environment.parent.name)
    return found
