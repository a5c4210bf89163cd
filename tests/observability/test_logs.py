"""One format for all, the ids of a request in all its lines, and no harm done by a log that cannot be written."""

import asyncio
import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.contextvars import bind_contextvars

from contracts.errors import BadSettings
from contracts.line_writer import LineWriter
from contracts.logs import LogSettings, configure_logs, log_settings
from tests.faults.fleet import Fleet
from tests.kept_logging import kept_logging
from tests.servers import ROOT

REQUEST_ID = "the-callers-own-id"


class Log:
    """What has been written to standard error, as records."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd
        self.writer: LineWriter | None = None

    def configure(self, **settings: str) -> None:
        self.writer = configure_logs("gateway", LogSettings(**settings))

    def text(self) -> str:
        assert self.writer is not None
        self.writer.close()
        return self._capfd.readouterr().err

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text().splitlines()]


@pytest.fixture
def log(capfd: pytest.CaptureFixture[str]) -> Iterator[Log]:
    with kept_logging():
        yield Log(capfd)


def test_lines_of_all_libraries_are_alike(log: Log) -> None:
    log.configure(format="json")
    bind_contextvars(request_id="req_1", response_id="resp_1")
    for name in ("ilvr.access", "service.sse", "uvicorn.error", "vllm.engine", "redis"):
        logging.getLogger(name).error("one %d", 1, extra={"status": 500})
    records = log.records()
    assert [record["logger"] for record in records] == [
        "ilvr.access",
        "service.sse",
        "uvicorn.error",
        "vllm.engine",
        "redis",
    ]
    for record in records:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", record.pop("timestamp"))
        del record["logger"]
        assert record == {
            "event": "one 1",
            "level": "error",
            "process": "gateway",
            "status": 500,
            "request_id": "req_1",
            "response_id": "resp_1",
        }


def test_the_level_is_for_our_lines_and_libraries_stay_quiet(log: Log) -> None:
    log.configure(format="json", level="debug")
    for name in ("service.sse", "httpx", "uvicorn.error"):
        logging.getLogger(name).debug("all")
        logging.getLogger(name).info("some")
    assert [(record["logger"], record["event"]) for record in log.records()] == [
        ("service.sse", "all"),
        ("service.sse", "some"),
    ]


@pytest.mark.parametrize("format", ["json", "text"])
def test_a_trace_is_part_of_its_line_and_shows_no_variable(log: Log, format: str) -> None:
    log.configure(format=format)
    question = "what a caller asked"
    try:
        len(5 if question else question)  # type: ignore[arg-type]
    except TypeError:
        logging.getLogger("service").exception("it broke")
    text = log.text()
    assert text.count("it broke") == 1
    assert "test_logs.py" in text
    assert "TypeError" in text
    assert question not in text
    assert format == "text" or len(text.splitlines()) == 1


def test_what_cannot_be_formatted_is_counted_and_raises_nothing(log: Log) -> None:
    log.configure(format="json")
    logging.getLogger("service").error("%d", "no number")
    assert log.text() == ""
    assert log.writer is not None
    assert log.writer.num_dropped == 1


def test_settings_are_checked() -> None:
    assert log_settings({}) == LogSettings(format="auto", level="info")
    assert log_settings({"ILVR_LOG_FORMAT": "JSON", "ILVR_LOG_LEVEL": "debug"}).is_json
    with pytest.raises(BadSettings, match=r"ILVR_LOG_LEVEL is 'loud'; it is one of debug, info, warning, error"):
        log_settings({"ILVR_LOG_LEVEL": "loud"})


def test_a_writer_whose_reader_stopped_drops_lines_and_never_waits() -> None:
    reading, writing = os.pipe()
    writer = LineWriter(writing, max_waiting=10)
    for _ in range(2000):
        writer.write("x" * 1000)  # the pipe holds 64 KiB
    assert writer.num_dropped > 1000
    os.close(reading)  # which ends the wait of the writer's thread
    writer.close()
    os.close(writing)


TARGETS = ("/dev/full", "a closed pipe", "a pipe that nobody reads")


@pytest.mark.parametrize("target", TARGETS)
def test_a_log_that_cannot_be_written_breaks_nothing(target: str) -> None:
    if target == "/dev/full":
        reading, writing = -1, os.open(target, os.O_WRONLY)
    else:
        reading, writing = os.pipe()
    if target == "a closed pipe":
        os.close(reading)
    command = [sys.executable, "-m", "tests.observability.served"]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=writing, text=True)
    os.close(writing)
    try:
        assert server.stdout is not None
        url = server.stdout.readline().split()[1]
        with httpx.Client(base_url=url, timeout=20) as client:
            for _ in range(400):  # lines of some 200 bytes: more than a pipe holds
                assert client.get("/v1/models").status_code == 200
            assert client.post("/v1/reason", json={"question": "?"}).json()["answer"] == "RRDD"
            (dropped,) = re.findall(r"^ilvr_log_lines_dropped_total (\S+)", client.get("/metrics").text, re.M)
        # Where nobody reads, lines wait: only when 10,000 do are more of them dropped.
        assert float(dropped) >= 400 or target == "a pipe that nobody reads"
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=20) == 0
    finally:
        server.kill()
        server.wait()
        server.stdout.close()
        if target == "a pipe that nobody reads":
            os.close(reading)


async def test_lines_of_two_processes_are_joined_by_the_ids(tmp_path: Path) -> None:
    """A real gateway and a runner with a scripted engine, on a real Redis."""
    start = "from contracts.logs import configure_logs; configure_logs('runner')"
    main = "from tests.faults.scripted_runner_process import main; raise SystemExit(main())"

    def command(index: int, port: int) -> list[str]:
        words = ["--metrics-port", str(port), "--max-num-seqs", "4", "--seconds", "0.1"]
        return [sys.executable, "-c", f"{start}; {main}", *words, "--runs", str(tmp_path / "runs.txt")]

    fleet = Fleet(tmp_path, command, {"ILVR_LOG_FORMAT": "json"}, num_gateways=1, num_runners=1, runner_start_s=60.0)
    async with fleet.running(), httpx.AsyncClient(base_url=fleet.urls[0], timeout=60) as client:
        ask = {"question": "Say RRDD, the 7th"}
        answers = await asyncio.gather(
            *(client.post("/v1/reason", json=ask, headers={"X-Request-Id": f"{REQUEST_ID}-{n}"}) for n in range(3))
        )
        gone = await client.get("/v1/reason/resp_none", headers={"X-Request-Id": "no-response"})
        async with asyncio.timeout(20):  # its line is written after its answer
            while "no-response" not in str(fleet.gateways[0].output()):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
    assert gone.status_code == 404
    lines = [_records(process.output()) for process in (fleet.gateways[0], fleet.runners[0])]
    for n, answer in enumerate(answers):
        ids = {"request_id": f"{REQUEST_ID}-{n}", "response_id": answer.json()["id"]}
        (request,), (answered,) = ([line for line in of_process if ids.items() <= line.items()] for of_process in lines)
        assert (request["logger"], request["process"], request["route"]) == ("ilvr.access", "gateway", "/v1/reason")
        assert (request["status"], request["method"], request["is_whole"]) == (200, "POST", True)
        assert request["bytes"] == len(answer.content)
        assert 0.1 < request["duration_s"] < 60
        assert (answered["event"], answered["process"], answered["outcome"]) == ("answered", "runner", "completed")
    (refused,) = (line for line in lines[0] if line.get("request_id") == "no-response")
    assert (refused["route"], refused["status"]) == ("/v1/reason/{response_id}", 404)


def _records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]
