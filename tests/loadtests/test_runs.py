"""Whole loads as a user starts them, on a server with a scripted engine. ``test_own_server.py`` loads a real one."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from loadtests.connection import get_text
from loadtests.recorder import LATENT_BLOCK, TEXT_GAP, TIME_TO_ANSWER, TIME_TO_FIRST_STEP
from tests.broker.redis_server import free_port
from tests.servers import ROOT

# Without bounds on time that a machine with other work breaks.
OBJECTIVES = """
"load.begun_share" = { at_least = 1 }
"requests.failed_share" = { at_most = 0 }
"metrics.time_to_first_step.p99_s" = { at_most = 30 }
"afterwards.responses_in_flight" = { at_most = 0 }
"""
POLITE = ["--cancel-share", "0", "--hang-up-share", "0", "--slow-reader-share", "0"]


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[int, str]]:
    """The id of its process, and its address."""
    command = [sys.executable, "-m", "tests.loadtests.server"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.pid, f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


def start(url, out, *options):
    command = [sys.executable, "-m", "loadtests", "--host", url, "--out", str(out), "--profile", "smoke", *options]
    # Locust is a process of its own also in what it inherits: a test that has loaded vLLM preloads libraries.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process, out):
    """Exit status, what was printed, and the results."""
    printed, _ = process.communicate(timeout=120)
    assert (out / "results.json").exists(), printed
    return process.returncode, printed, json.loads((out / "results.json").read_text())


def load(url, out, *options):
    return finish(start(url, out, *options), out)


def wait_for_requests(url):
    deadline = time.monotonic() + 30
    while "ilvr_gateway_responses_in_flight 0.0" in get_text(url, "/metrics"):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_smoke_of_every_kind_and_manner(server, tmp_path):
    objectives = tmp_path / "objectives.toml"
    objectives.write_text(OBJECTIVES)
    options = ["--rate", "8", "--seconds", "12", "--seed", "2", "--objectives", str(objectives)]
    status, printed, results = load(server[1], tmp_path / "out", *options)
    assert status == 0, printed
    requests, num_begun = results["requests"], results["load"]["num_begun"]
    assert num_begun == results["load"]["num_due"] > 70
    kinds = requests["by_kind"]
    assert set(kinds) == {"json", "form", "stream", "chat", "chat_stream", "cancel", "hang_up", "slow"}
    assert sum(count for counts in kinds.values() for count in counts.values()) == num_begun
    assert (requests["failed"], requests["refused"], requests["unfinished"], requests["reasons"]) == (0, 0, 0, {})
    assert all(set(kinds[kind]) == {"answered"} for kind in ("json", "form", "stream", "chat", "chat_stream", "slow"))
    assert set(kinds["hang_up"]) == {"left"}
    assert kinds["cancel"]["cancelled"] > 0
    metrics = results["metrics"]
    for name in (TIME_TO_FIRST_STEP, TEXT_GAP, LATENT_BLOCK, TIME_TO_ANSWER):
        assert metrics[name]["count"] > 30
        assert 0 < metrics[name]["p50_s"] <= metrics[name]["p99_s"]
    # An answer is 14 events, 0.03 s before each; the script says that a block took 3.5 ms.
    assert metrics[TIME_TO_ANSWER]["by_kind"]["stream"]["p50_s"] > 14 * 0.03
    assert metrics[LATENT_BLOCK]["max_s"] == pytest.approx(0.0035)
    assert results["afterwards"] == {"responses_in_flight": 0, "stream_readers": 0}
    files = {file.name for file in (tmp_path / "out").iterdir()}
    assert files >= {"report.html", "results.json", "metrics.csv", "over_time.csv", "locust.html", "locust_stats.csv"}
    # Locust shows what was measured inside of streams as well.
    stats = (tmp_path / "out" / "locust_stats.csv").read_text()
    assert all(
        f"TIME,{title}," in stats for title in ("time to first step", "text inter-token gap", "latent block time")
    )


def test_who_was_due_while_the_server_stood_still_is_counted_as_having_waited(server, tmp_path):
    """With a closed loop, or with times from when a request was sent, one request would be slow, and not a third."""
    pid, url = server
    options = ["--arrivals", "even", "--rate", "10", "--seconds", "6", "--kinds", "stream=1", *POLITE]
    process = start(url, tmp_path / "out", *options, "--processes", "2", "--master-port", str(free_port()))
    wait_for_requests(url)
    try:
        os.kill(pid, signal.SIGSTOP)
        time.sleep(2)
    finally:
        os.kill(pid, signal.SIGCONT)
    _, printed, results = finish(process, tmp_path / "out")
    assert results["load"]["num_begun"] == results["load"]["num_due"] == 59, printed
    assert results["requests"]["answered"] == 59
    times = results["metrics"][TIME_TO_ANSWER]
    assert times["max_s"] > 2
    # Twenty were due then; with their 0.42 s, more than half of them took longer than 1.3 s.
    assert next(share for seconds, share in times["distribution_s"] if seconds > 1.3) < 1 - 10 / 59


def test_who_still_waits_at_the_end_is_counted_with_the_time_it_has_waited(server, tmp_path):
    """By a master and a worker, started as on two machines."""
    pid, url = server
    (tmp_path / "short.toml").write_text(
        'arrivals = "even"\ndrain_s = 1.0\nkinds = { stream = 1 }\nstages = [{ seconds = 2, level = 5 }]\n'
    )
    port = str(free_port())
    worker = subprocess.Popen(
        [sys.executable, "-m", "loadtests", "--worker-of", "127.0.0.1", "--master-port", port],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    options = ["--profile", str(tmp_path / "short.toml"), "--expect-workers", "1", "--master-port", port]
    try:
        process = start(url, tmp_path / "out", *options)
        wait_for_requests(url)
        os.kill(pid, signal.SIGSTOP)
        time.sleep(5)
    finally:
        os.kill(pid, signal.SIGCONT)
        worker_status = worker.wait(timeout=60)
    status, printed, results = finish(process, tmp_path / "out")
    assert (status, worker_status) == (1, 0), printed
    requests, times = results["requests"], results["metrics"][TIME_TO_ANSWER]
    assert requests["unfinished"] > 4
    assert requests["answered"] + requests["unfinished"] == times["count"] == results["load"]["num_due"] == 9
    assert times["max_s"] > 1
    assert results["afterwards"] == {"responses_in_flight": 0, "stream_readers": 0}


def test_a_closed_loop_in_openais_format_waits_for_its_answers(server, tmp_path):
    options = ["--loop", "closed", "--rate", "3", "--seconds", "4", "--kinds", "chat=1,chat_stream=1", *POLITE]
    status, printed, results = load(server[1], tmp_path / "out", *options)
    assert status == 1, printed  # for chats tell no time of latent blocks, which is an objective
    assert "MISSING" in printed
    kinds = results["requests"]["by_kind"]
    assert set(kinds) == {"chat", "chat_stream"}
    assert all(set(counts) == {"answered"} for counts in kinds.values())
    # Three at a time, each for 14 × 0.03 s or more.
    assert 8 < results["load"]["num_begun"] <= 3 * (4 / 0.42 + 2)
    assert results["metrics"][TIME_TO_FIRST_STEP]["count"] == kinds["chat_stream"]["answered"]


def test_refusals_fail_the_objective(server, tmp_path):
    """At more than twice what it can do, in even arrivals that do not wait, the queue grows until it is full."""
    options = ["--arrivals", "even", "--rate", "90", "--seconds", "3", "--kinds", "json=1", *POLITE]
    status, printed, results = load(server[1], tmp_path / "out", *options)
    assert status == 1, printed
    assert results["requests"]["refused"] > 10
    assert results["requests"]["failed"] == 0
    assert set(results["requests"]["reasons"]) == {"json: 429 overloaded"}
    assert "BROKEN" in printed
