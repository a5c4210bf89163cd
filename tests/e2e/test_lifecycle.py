"""Starting, cancelling, dying and stopping, with the real engine in a process of its own."""

import asyncio
import base64
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.sse import parse_sse
from tests.servers import descendants, is_alive, running_server

ILVR = str(Path(sys.executable).parent / "ilvr")
# Golden checkpoint b goes on for ever on this picture: greedy, it repeats itself.
GOLDEN_PICTURE = Path(__file__).parent.parent / "golden" / "images" / "a02.png"
GOLDEN_QUESTION = "How many circles are there in the image? Think step by step."
MAX_TOKENS = 4000


def long_request():
    data = base64.b64encode(GOLDEN_PICTURE.read_bytes()).decode()
    image = {"type": "base64", "media_type": "image/png", "data": data}
    return {"question": GOLDEN_QUESTION, "images": [image], "max_tokens": MAX_TOKENS, "stream": True}


async def read_events(client, body, *, after_first=None):
    """All events of a stream; ``after_first`` is awaited with the response id once something was decoded."""
    events = []
    async with client.stream("POST", "/v1/reason", json=body) as streamed:
        lines = []
        async for line in streamed.aiter_lines():
            lines.append(line)
            if line == "":
                events += parse_sse(lines)
                lines = []
                if after_first and events and events[-1]["type"] == "step.delta":
                    await after_first(events[0]["response_id"])
                    after_first = None
    return events


def engine_process(server):
    """The process of vLLM's engine core, by the name it gives itself."""
    return next(pid for pid in server.tree() if "EngineCore" in Path(f"/proc/{pid}/cmdline").read_text())


def in_flight(metrics):
    line = next(line for line in metrics.splitlines() if line.startswith("ilvr_runner_responses_in_flight"))
    return float(line.split()[1])


async def test_cancelled_responses_end_and_free_their_slots(golden_server):
    async with golden_server.async_client() as client:

        async def cancel(response_id):
            first = (await client.post(f"/v1/reason/{response_id}/cancel")).json()
            second = (await client.post(f"/v1/reason/{response_id}/cancel")).json()
            assert first["status"] == second["status"] == "cancelled"

        streams = await asyncio.gather(*(read_events(client, long_request(), after_first=cancel) for _ in range(20)))
        assert [events[-1]["type"] for events in streams] == ["response.cancelled"] * 20
        assert all(events[-1]["response"]["finish_reason"] == "cancelled" for events in streams)
        for _ in range(100):  # the gauge follows the heartbeat
            if in_flight((await client.get("/metrics")).text) == 0:
                break
            await asyncio.sleep(0.2)
        assert in_flight((await client.get("/metrics")).text) == 0


async def test_a_client_that_leaves_ends_its_response(golden_server):
    async with golden_server.async_client() as client:
        async with client.stream("POST", "/v1/reason", json=long_request()) as streamed:
            first = next(parse_sse([line async for line in _until_blank(streamed)]))
        for _ in range(100):
            status = (await client.get(f"/v1/reason/{first['response_id']}")).json()["status"]
            if status not in ("queued", "in_progress"):
                break
            await asyncio.sleep(0.2)
    assert status == "cancelled"


async def _until_blank(streamed):
    async for line in streamed.aiter_lines():
        yield line
        if line == "":
            return


async def test_engine_death_fails_open_responses_and_readiness(golden_folders):
    with running_server("--model", str(golden_folders["b"])) as server:
        engine = engine_process(server)
        async with server.async_client() as client:
            assert (await client.get("/readyz")).status_code == 200
            killed = asyncio.Event()

            async def kill(_):
                if not killed.is_set():
                    killed.set()
                    os.kill(engine, signal.SIGKILL)

            streams = await asyncio.gather(*(read_events(client, long_request(), after_first=kill) for _ in range(5)))
            assert [events[-1]["type"] for events in streams] == ["response.failed"] * 5
            assert {events[-1]["error"]["code"] for events in streams} == {"engine_dead"}
            assert all(events[-1]["error"]["retryable"] for events in streams)
            assert (await client.get("/readyz")).status_code == 503
            assert (await client.get("/healthz")).status_code == 200
            refused = await client.post("/v1/reason", json={"question": "Still there?"})
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] in ("not_ready", "engine_dead")
        assert server.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_and_everything_below_it(number):
    with running_server("--engine", "transformers") as server:
        tree = server.tree()
        assert server.stop(number) == 0
        assert not any(is_alive(pid) for pid in tree)
        assert "Traceback" not in "".join(server.lines)


async def test_ctrl_c_in_a_terminal_ends_open_work_with_a_reason(golden_folders):
    """The signal reaches the engine too, which must not end before the server says so. In bfloat16, for a change."""
    with running_server("--model", str(golden_folders["b"]), "--dtype", "bfloat16") as server:
        tree = server.tree()
        assert len(tree) > 1
        async with server.async_client() as client:

            async def interrupt(_):
                server.interrupt_group()

            events = await read_events(client, long_request(), after_first=interrupt)
        assert events[-1]["type"] == "response.failed"
        assert (events[-1]["error"]["code"], events[-1]["error"]["retryable"]) == ("engine_dead", True)
        assert "stopped" in events[-1]["error"]["message"]
        assert len([event for event in events if event["type"] == "step.delta"]) > 20  # it went on for the grace period
        assert server.process.wait(timeout=30) == 0
        async with asyncio.timeout(5):  # Python's resource tracker ends when it sees that all others have
            while any(is_alive(pid) for pid in tree):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert "Traceback" not in "".join(server.lines)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_model_loads_ends_it_at_once(number):
    command = [ILVR, "serve", "--port", "0", "--kv-cache-mib", "64"]
    loading = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        while len(tree := descendants(loading.pid)) < 2:
            assert loading.poll() is None
            time.sleep(0.1)
        time.sleep(1.5)
        loading.send_signal(number)
        assert loading.wait(timeout=10) == 128 + number
        time.sleep(0.5)
        assert not any(is_alive(pid) for pid in tree)
        assert "Traceback" not in loading.stderr.read()
    finally:
        loading.kill()
        loading.wait()
        loading.stderr.close()


def test_a_taken_port_and_a_bad_folder_are_told_in_one_line(maze_server, tmp_path):
    port = maze_server.url.rsplit(":", 1)[1]
    for args, word in (
        (["--port", port], "--port"),
        (["--port", "0", "--model", str(tmp_path)], "config.json"),
        (["--port", "70000"], "--port"),
        (["--max-num-seqs", "0"], "max-num-seqs"),
    ):
        told = subprocess.run([ILVR, "serve", *args], capture_output=True, text=True, timeout=120)
        assert told.returncode == 1
        assert told.stderr.startswith("ilvr serve: ")
        assert word in told.stderr
        assert "Traceback" not in told.stderr
