"""``ilvr ask`` against the scripted server: what is printed, and how it ends."""

import http.server
import io
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from contracts.errors import GenerationFailed, Overloaded
from contracts.responses import TextStep
from ilvr.cli import main
from ilvr.step_view import PlainView, TerminalView, view_for
from tests.ilvr.conftest import ServerThread

QUESTION = "Find a safe path from S to G."
PLAIN = """\
Holes: second row.
Let me 
[latent 8 full]
 So the path is \\boxed{RRDD} ✓
answer: RRDD
"""  # noqa: W291 - text is verbatim


class FakeTerminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_a_pipe_gets_text_latent_steps_and_the_answer_last(
    server: ServerThread, maze: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ask", maze, QUESTION, "--url", server.url]) == 0
    printed = capsys.readouterr()
    assert printed.out == PLAIN
    assert printed.err == (
        "completed · 41 tokens in (16 of images) · 23 of text and 8 latent steps out · first step 12 ms · total 80 ms\n"
    )


def test_all_that_was_asked_reaches_the_runner(server: ServerThread, maze: str) -> None:
    options = ["--max-tokens", "9", "--temperature", "0.5", "--seed", "7", "--latent", "off", "--url", server.url + "/"]
    assert main(["ask", maze, maze, "  verbatim \n", *options]) == 0
    (job,) = server.runner.jobs
    assert (job.question, len(job.images), job.latent_mode) == ("  verbatim \n", 2, "off")
    assert (job.sampling.max_tokens, job.sampling.temperature, job.sampling.seed) == (9, 0.5, 7)
    assert main(["ask", "--url", server.url, "no image"]) == 0
    assert server.runner.jobs[1].images == ()


def test_json_is_the_response_object(server: ServerThread, maze: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", maze, QUESTION, "--json", "--url", server.url]) == 0
    response = json.loads(capsys.readouterr().out)
    assert (response["object"], response["answer"], len(response["steps"])) == ("reason.response", "RRDD", 3)


def test_text_with_unusual_line_breaks_arrives_whole(server: ServerThread, capsys: pytest.CaptureFixture[str]) -> None:
    server.runner.steps = (TextStep(index=0, text="a\u2028b\x0bc\x85d\r\ne"),)
    assert main(["ask", QUESTION, "--url", server.url]) == 0
    assert capsys.readouterr().out == "a\u2028b\x0bc\x85d\r\ne\nanswer: RRDD\n"


def test_an_answer_that_was_cut_says_so(server: ServerThread, capsys: pytest.CaptureFixture[str]) -> None:
    server.runner.ending = "incomplete"
    assert main(["ask", QUESTION, "--url", server.url]) == 0
    printed = capsys.readouterr()
    assert printed.out.endswith("\nanswer: (none)\n")
    assert printed.err.startswith("stopped at the token limit · ")


def explained(capsys: pytest.CaptureFixture[str], argv: list[str]) -> str:
    """One sentence on stderr, exit status 1, nothing on stdout."""
    assert main(["ask", *argv]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("ilvr ask: ")
    assert printed.err.count("\n") == 1
    return printed.err


def test_without_a_server(maze: str, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    assert "start it with: ilvr serve" in explained(capsys, [maze, QUESTION, "--url", url])


def test_mistakes_are_explained(
    server: ServerThread, maze: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = ["--url", server.url]
    missing = str(tmp_path / "none.png")
    assert f"{missing}: No such file" in explained(capsys, [missing, QUESTION, *url])
    assert "add the question" in explained(capsys, [maze, *url])
    text = tmp_path / "text.png"
    text.write_text("no picture")
    assert "images.0.data: " in explained(capsys, [str(text), QUESTION, *url])
    assert "max_tokens" in explained(capsys, [maze, QUESTION, "--max-tokens", "0", *url])
    assert "nonsense is not the address" in explained(capsys, [QUESTION, "--url", "nonsense"])


def test_another_kind_of_server(capsys: pytest.CaptureFixture[str]) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{other.server_port}"
        assert main(["ask", QUESTION, "--url", url]) == 1
        other.shutdown()
    assert "answered HTTP 501; is that an ilvr server?" in capsys.readouterr().err


def test_a_server_that_is_not_ready(server: ServerThread, maze: str, capsys: pytest.CaptureFixture[str]) -> None:
    server.runner.is_ready, server.runner.detail = False, "loading the model"
    time.sleep(0.5)  # a heartbeat
    assert "loading the model" in explained(capsys, [maze, QUESTION, "--url", server.url])


def test_a_response_that_fails(server: ServerThread, capsys: pytest.CaptureFixture[str]) -> None:
    server.runner.fail_with = GenerationFailed("It broke.")
    assert main(["ask", QUESTION, "--url", server.url]) == 1
    assert "It broke. (generation_failed)" in capsys.readouterr().err
    server.runner.fail_with = Overloaded("Later.")
    assert main(["ask", QUESTION, "--url", server.url, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "overloaded"


def test_ctrl_c_cancels_on_the_server(server: ServerThread, maze: str) -> None:
    server.call(server.runner.pause)
    command = [sys.executable, "-m", "ilvr", "ask", maze, QUESTION, "--url", server.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as asking:
        deadline = time.monotonic() + 20
        while not server.call(lambda: server.runner.num_working) and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.3)  # for the first event to reach the client
        asking.send_signal(signal.SIGINT)
        _, notes = asking.communicate(timeout=20)
    assert asking.returncode == 130
    assert notes == "cancelled\n"
    response_id = server.runner.jobs[0].response_id
    # Well within the grace of 5 s: it was asked for.
    assert server.call(lambda: server.runner.num_working) == 0
    assert httpx.get(f"{server.url}/v1/reason/{response_id}").json()["status"] == "cancelled"


def test_a_terminal_sees_the_bar_fill(server: ServerThread, maze: str, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = FakeTerminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    assert main(["ask", maze, QUESTION, "--url", server.url]) == 0
    shown = re.sub(r"\x1b\[\dm", "", terminal.getvalue())
    bars = re.findall(r"latent ([█░]+) (\d/8)", shown)
    assert bars == [("░" * 8, "0/8"), ("████░░░░", "4/8"), ("█" * 8, "8/8"), ("█" * 8, "8/8")]
    assert "latent ████████ 8/8 full, 3.5 ms\n So the path is \\boxed{RRDD} ✓\n" in shown
    assert shown.splitlines()[-1] == "answer: RRDD"


def test_a_model_does_not_steer_the_terminal(server: ServerThread, monkeypatch: pytest.MonkeyPatch) -> None:
    server.runner.steps = (TextStep(index=0, text="\x1b[2Jgone\r?"),)
    terminal = FakeTerminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    assert main(["ask", QUESTION, "--url", server.url]) == 0
    assert "␛[2Jgone␍?" in terminal.getvalue()


def test_the_bar_needs_a_terminal_that_can_print_it() -> None:
    narrow = FakeTerminal()
    narrow.encoding = "ascii"
    assert type(view_for(narrow, io.StringIO(), {})) is PlainView
    assert type(view_for(FakeTerminal(), io.StringIO(), {})) is TerminalView
    assert type(view_for(io.StringIO(), io.StringIO(), {})) is PlainView


def test_help_needs_no_server_and_no_http_client() -> None:
    code = "import sys; sys.argv = ['ilvr', 'ask', '--help']\n"
    code += "try:\n    import ilvr.cli; ilvr.cli.main()\n"
    code += "except SystemExit: pass\nassert not {'httpx', 'rich', 'torch', 'fastapi'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "ilvr ask maze.png" in done.stdout
