"""How many streams one gateway process carries on one core, and what an idle one costs in memory.

    python -m benchmarks.gateway                     # 1,000 streams for 60 s, then more until it is too late: 6 minutes
    python -m benchmarks.gateway --seconds 10        # shorter turns
    python -m benchmarks.gateway --profile 1000      # where the time of so many streams goes

The server of `benchmarks/gateway/server.py` has one core, the readers another. Each event holds the time at which it
was due by the engine's clock, and its lateness is counted where it is read: clock, broker, gateway, loopback and
reader together.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import uvloop

from benchmarks.decode.environment import environment
from benchmarks.decode.figures import table
from benchmarks.gateway.client import connect

EVENTS_PER_S = 20.0
STREAMS = 1000
LATE_BAR_S, MEMORY_BAR_KIB = 0.25, 50.0
GROWTH = 1.25
REPORTS = Path("benchmarks/reports")


@dataclass(frozen=True)
class Turn:
    """``lost``: events that were due a second or more ago and are not there, and whatever came out of order."""

    streams: int
    seconds: float
    events: int
    lost: int
    p50_late_ms: float
    p99_late_ms: float
    most_late_ms: float
    core_share: float
    idle_kib: float

    @property
    def is_well(self) -> bool:
        return self.lost == 0 and self.p99_late_ms <= 1000 * LATE_BAR_S


@contextmanager
def server(*options: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    command = [sys.executable, "-m", "benchmarks.gateway.server", str(EVENTS_PER_S), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, int(process.stdout.readline())
            process.send_signal(signal.SIGTERM)
            print(process.stdout.read(), end="")
            process.wait(timeout=60)
        finally:
            process.kill()


async def measure(streams: int, seconds: float, *options: str) -> Turn:
    late_s: array[float] = array("d")
    defects: list[str] = []
    with server(*options) as (process, port):
        await connect(port, 1, array("d"), [])  # what is imported or allocated once is no stream's
        before_kib = resident_kib(process.pid)
        readers = await connect(port, streams, late_s, defects)
        await asyncio.sleep(2)
        idle_kib = (resident_kib(process.pid) - before_kib) / streams
        used_s = processor_s(process.pid)
        process.send_signal(signal.SIGUSR1)
        await asyncio.sleep(seconds)
        used_s = processor_s(process.pid) - used_s
        # Of what was due a second ago or earlier all must be here; two words of slack for the first and the last tick.
        due = int(EVENTS_PER_S * (seconds - 1)) - 2
        missing = sum(max(due - reader.num_words, 0) for reader in readers)
        for reader in readers:
            assert reader.transport is not None
            reader.transport.abort()
    for defect in defects[:3]:
        print(defect)
    cuts = statistics.quantiles(late_s, n=100)
    return Turn(
        streams=streams,
        seconds=seconds,
        events=len(late_s),
        lost=missing + len(defects),
        p50_late_ms=round(1000 * cuts[49], 2),
        p99_late_ms=round(1000 * cuts[98], 2),
        most_late_ms=round(1000 * max(late_s), 2),
        core_share=round(used_s / seconds, 3),
        idle_kib=round(idle_kib, 1),
    )


def resident_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


def processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def climb(seconds: float) -> list[Turn]:
    """More streams, until one turn is not well."""
    turns = [await measured(STREAMS, seconds)]
    while turns[-1].is_well:
        turns.append(await measured(int(turns[-1].streams * GROWTH), min(seconds, 15)))
    return turns


async def measured(streams: int, seconds: float) -> Turn:
    turn = await measure(streams, seconds)
    print(turn, flush=True)
    return turn


def report(turns: list[Turn], command: str) -> bool:
    """Whether all bars are met."""
    found = environment(command)
    header = [
        "streams",
        "events/s",
        "seconds",
        "lost or 1 s late",
        "late p50, ms",
        "p99",
        "most",
        "of the core, %",
        "KiB a stream",
    ]
    rows = [
        [
            f"{turn.streams:,}",
            f"{turn.streams * EVENTS_PER_S:,.0f}",
            f"{turn.seconds:g}",
            str(turn.lost),
            *(f"{value:.1f}" for value in (turn.p50_late_ms, turn.p99_late_ms, turn.most_late_ms)),
            f"{100 * turn.core_share:.0f}",
            f"{turn.idle_kib:.1f}",
        ]
        for turn in turns
    ]
    first, last, well = turns[0], turns[-1], [turn for turn in turns if turn.is_well]
    bars = (
        (f"{first.streams:,} streams at {EVENTS_PER_S:g} events/s: events lost", first.lost, 0),
        (f"{first.streams:,} streams: p99 lateness, ms", first.p99_late_ms, 1000 * LATE_BAR_S),
        ("memory of an idle stream, KiB", first.idle_kib, MEMORY_BAR_KIB),
    )
    ceiling = f"{well[-1].streams:,}" if well else "none"
    text = [
        "# One gateway process on one core",
        "",
        "Streams of `POST /v1/reason` from a gateway, the embedded broker and an engine that only keeps time, in one",
        "event loop on one core; readers on another. Late: from when an event was due by that clock until it was",
        "read. Lost or 1 s late: due a second before the end and not read by then, or read out of order.",
        "",
        table(header, rows),
        "",
        *(
            f"* {what}: {value:g}, at most {limit:g} was asked: {'met' if value <= limit else 'MISSED'}"
            for what, value, limit in bars
        ),
        f"* The ceiling: {ceiling} streams were the most that stayed within the bars; "
        f"with {last.streams:,} the core was {100 * last.core_share:.0f} % busy.",
        "",
        f"`{command}`, commit {found['commit']}. {found['processor']}, {found['cores']} cores. Cores that other work "
        f"used just before: {found['cores_in_use']}. Python {found['python']}.",
        "",
    ]
    (REPORTS / "gateway.md").write_text("\n".join(text))
    content = {"environment": found, "turns": [asdict(turn) for turn in turns]}
    (REPORTS / "gateway.json").write_text(json.dumps(content, indent=1) + "\n")
    print("\n".join(text))
    return all(value <= limit for _, value, limit in bars)


def profile(streams: int, seconds: float) -> None:
    """A profiler makes every call dearer, so shares count, and not times."""
    found = environment(f"python -m benchmarks.gateway --profile {streams}")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "profile.txt"
        turn = uvloop.run(measure(streams, seconds, "--profile", str(file)))
        lines = file.read_text().strip().splitlines()
    text = [
        "# Where the time of a gateway process goes",
        "",
        f"{streams:,} streams at {EVENTS_PER_S:g} events/s for {seconds:g} s, as in `gateway.md`; {turn.events:,} "
        "events were read. Functions by their own time, with that of starting and connecting. A profiler makes every "
        "call dearer: shares count, and not times.",
        "",
        "```text",
        *(line.rstrip() for line in lines),
        "```",
        "",
        f"`{found['command']}`, commit {found['commit']}. {found['processor']}, {found['cores']} cores. Python "
        f"{found['python']}.",
        "",
    ]
    (REPORTS / "gateway-profile.md").write_text("\n".join(text))
    print("\n".join(text))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="of the first turn; of the others at most 15")
    parser.add_argument(
        "--profile", type=int, metavar="STREAMS", help="write where the server's time goes instead: gateway-profile.md"
    )
    asked = parser.parse_args()
    if asked.profile:
        profile(asked.profile, min(asked.seconds, 15))
        return 0
    command = "python -m benchmarks.gateway" + (f" --seconds {asked.seconds:g}" if asked.seconds != 60 else "")
    return 0 if report(uvloop.run(climb(asked.seconds)), command) else 1


if __name__ == "__main__":
    sys.exit(main())
