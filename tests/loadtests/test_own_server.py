"""Two minutes of load without a server: one is started, with the embedded model, and leaves nothing behind."""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from loadtests import own_server
from tests.servers import ROOT

# All that does not depend on how fast the machine is.
OBJECTIVES = """
"load.begun_share" = { at_least = 1 }
"requests.failed_share" = { at_most = 0 }
"requests.unfinished_share" = { at_most = 0 }
"requests.refused_share" = { at_most = 0 }
"afterwards.responses_in_flight" = { at_most = 0 }
"afterwards.stream_readers" = { at_most = 0 }
"""


@pytest.mark.timeout(400)
def test_a_load_on_a_server_of_its_own(tmp_path):
    (tmp_path / "objectives.toml").write_text(OBJECTIVES)
    told = ["--profile", "smoke", "--objectives", str(tmp_path / "objectives.toml"), "--out", str(tmp_path / "out")]
    command = [sys.executable, "-m", "loadtests", *told]
    mark = f"ILVR_TEST_MARK={tmp_path}"  # which all processes of it inherit
    name, value = mark.split("=", 1)
    seen = set()
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, name: value}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as load:
        for line in load.stdout:
            seen |= processes_with(mark)
            said = line
        assert load.wait() == 0, said
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["server"]["runners"][0]["model"] == "maze-tiny"
    assert results["requests"]["by_kind"].keys() >= {"json", "form", "stream", "chat", "chat_stream", "cancel"}
    assert results["metrics"]["latent_block"]["count"] > 50
    assert len(seen) > 2  # the load, its server and the server's engine
    assert processes_with(mark) == set()


def test_a_server_that_does_not_stop_is_killed_and_costs_no_results(monkeypatch, tmp_path, capsys):
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    deaf += "print('ilvr is ready: http://127.0.0.1:9', flush=True); time.sleep(60)"
    program = tmp_path / "ilvr"
    program.write_text(f"#!{sys.executable}\n{deaf}")
    program.chmod(0o755)
    monkeypatch.setattr(own_server.sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(own_server, "STOP_S", 0.3)
    began_at = time.monotonic()
    with own_server.own_server() as host:
        assert host == "http://127.0.0.1:9"
    assert time.monotonic() - began_at < 30
    assert "did not stop within 0.3 s" in capsys.readouterr().err


def processes_with(mark: str) -> set[str]:
    found = set()
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it has ended, or is another user's
            if mark.encode() in environment.read_bytes().split(b"\0"):
                found.add(environment.parent.name)
    return found
