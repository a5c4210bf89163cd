"""Two minutes of load without a server: one is started, with the embedded model, and leaves nothing behind."""

import json
import subprocess
import sys

import pytest

from tests.servers import ROOT


@pytest.mark.timeout(400)
def test_a_load_on_a_server_of_its_own(tmp_path):
    command = [sys.executable, "-m", "loadtests", "--profile", "smoke", "--out", str(tmp_path / "out")]
    before = _servers()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=380)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["requests"]["failed"] == results["requests"]["unfinished"] == 0, done.stdout
    assert results["server"]["runners"][0]["model"] == "maze-tiny"
    assert results["requests"]["by_kind"].keys() >= {"json", "form", "stream", "chat", "chat_stream", "cancel"}
    assert results["metrics"]["latent_block"]["count"] > 50
    assert _servers() <= before


def _servers():
    listed = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    return {line for line in listed.splitlines() if "ilvr serve" in line}
