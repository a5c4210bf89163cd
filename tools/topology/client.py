"""What a user and Prometheus see of the running topology."""

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

QUESTION = "Find a safe path from S to G."
TIMEOUT_S = 120.0
SCRAPES_S = 90.0
TERMINAL = ("response.completed", "response.incomplete", "response.failed", "response.cancelled")


@dataclass(frozen=True, slots=True)
class Arrival:
    at_s: float  # since the question was sent
    type: str
    data: dict[str, Any]


def draw_maze(path: Path, *, seed: int) -> bytes:
    words = ["maze", "--size", "6", "--seed", str(seed), "--out", str(path)]
    subprocess.run([sys.executable, "-m", "ilvr", *words], check=True, capture_output=True)
    return path.read_bytes()


def ask(url: str, token: str, picture: bytes) -> list[Arrival]:
    """A streamed question: each event with the time at which the bytes that end it were there."""
    arrivals, rest = [], b""
    began = time.monotonic()
    with httpx.stream(
        "POST",
        f"{url}/v1/reason",
        headers={"Authorization": f"Bearer {token}"},
        data={"question": QUESTION, "stream": "true"},
        files={"image": ("maze.png", picture, "image/png")},
        timeout=TIMEOUT_S,
    ) as answer:
        if answer.status_code != httpx.codes.OK:
            raise RuntimeError(f"{answer.status_code}: {answer.read()!r}")
        for chunk in answer.iter_raw():
            at_s = time.monotonic() - began
            *blocks, rest = (rest + chunk).split(b"\n\n")
            arrivals += [event for block in blocks if (event := _event(block, at_s))]
    return arrivals


def _event(block: bytes, at_s: float) -> Arrival | None:
    for line in block.splitlines():
        if line.startswith(b"data:"):
            data = json.loads(line[5:])
            return Arrival(at_s, data["type"], data)
    return None  # a comment


def check_stream(arrivals: list[Arrival]) -> str:
    """One line on how they came. Raises ``RuntimeError`` if they are not whole, or came together at the end."""
    numbers = [arrival.data["sequence_number"] for arrival in arrivals]
    if numbers != list(range(len(arrivals))) or [a.type in TERMINAL for a in arrivals].count(True) != 1:
        raise RuntimeError(f"not one gapless stream: {[(a.data['sequence_number'], a.type) for a in arrivals]}")
    if arrivals[-1].type != "response.completed":
        raise RuntimeError(f"it ended with {arrivals[-1].data}")
    begun, ended = arrivals[0].at_s, arrivals[-1].at_s
    deltas = [a.at_s for a in arrivals if a.type == "step.delta"]
    times = len({a.at_s for a in arrivals})
    took_s = arrivals[-1].data["response"]["timings"]["total_ms"] / 1000
    # Buffered, all would come at the time of the last.
    if times < len(arrivals) / 3 or ended - begun < took_s / 2:
        raise RuntimeError(f"{len(arrivals)} events at {times} times, {begun:.3f} to {ended:.3f} of {took_s:.3f} s")
    return (
        f"{len(arrivals)} events at {times} times: response.created after {begun * 1000:.0f} ms, the first of "
        f"{len(deltas)} deltas after {deltas[0] * 1000:.0f} ms, the last event after {ended * 1000:.0f} ms; "
        f"answer {arrivals[-1].data['response']['answer']!r}"
    )


def replay(url: str, token: str, response_id: str) -> list[int]:
    """The sequence numbers of a response's events, read anew."""
    headers = {"Authorization": f"Bearer {token}"}
    text = httpx.get(f"{url}/v1/reason/{response_id}/events", headers=headers, timeout=TIMEOUT_S).text
    return [int(line.partition(":")[2]) for line in text.splitlines() if line.startswith("id:")]


def status(url: str, **headers: str) -> int:
    return httpx.get(url, headers=headers, timeout=TIMEOUT_S).status_code


def targets(prometheus: str, wanted: dict[str, int]) -> str:
    """Waits until each job has as many targets up as wanted, and none down. Raises ``RuntimeError``."""
    deadline = time.monotonic() + SCRAPES_S
    while True:
        active = httpx.get(f"{prometheus}/api/v1/targets", timeout=TIMEOUT_S).json()["data"]["activeTargets"]
        up: dict[str, int] = {}
        for target in active:
            up[target["labels"]["job"]] = up.get(target["labels"]["job"], 0) + (target["health"] == "up")
        if up == wanted and len(active) == sum(wanted.values()):
            return ", ".join(f"{job} {number}" for job, number in sorted(up.items()))
        if time.monotonic() > deadline:
            raise RuntimeError(f"{[(t['scrapeUrl'], t['health'], t['lastError']) for t in active]}, wanted {wanted}")
        time.sleep(1)


def rules(prometheus: str) -> str:
    """Raises ``RuntimeError`` if a rule cannot be evaluated."""
    groups = httpx.get(f"{prometheus}/api/v1/rules", timeout=TIMEOUT_S).json()["data"]["groups"]
    found = [rule for group in groups for rule in group["rules"]]
    broken = [(rule["name"], rule.get("lastError")) for rule in found if rule["health"] == "err"]
    if broken:
        raise RuntimeError(f"rules that fail: {broken}")
    return f"{len(found)} rules"
