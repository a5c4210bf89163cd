"""Accuracy of a running server on unseen mazes, measured through ``POST /v1/reason``.

    python -m benchmarks.maze_accuracy --url http://127.0.0.1:8000 --per-size 500 --concurrency 16 --out accuracy.json

Each maze of the test split is drawn, sent with the standard question and default sampling, and its answer walked. Also
reported: the share of answers with a full latent block, and the baseline that walks straight and sees no hole.
"""

import argparse
import asyncio
import base64
import io
import json
import math
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

from contracts.maze_pictures import draw_maze
from contracts.mazes import QUESTION, SIZES, Maze, distinct, run_path, straight_path

TIMEOUT_S = 120.0
MAX_RETRIES = 5
# Two-sided 95 % quantile of the normal distribution.
Z_95 = 1.959964


@dataclass(frozen=True, slots=True)
class Outcome:
    """One maze: whether its answer is a safe path and whether a complete latent block came before it."""

    is_success: bool
    has_full_block: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeResult:
    """One row of the table; shares are between 0 and 1."""

    size: int
    num_mazes: int
    success: float
    interval_95: tuple[float, float]
    full_block: float
    straight_baseline: float


def wilson_interval(num_successes: int, num_trials: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927)."""
    share, z2 = num_successes / num_trials, Z_95**2
    centre = (share + z2 / (2 * num_trials)) / (1 + z2 / num_trials)
    spread = math.sqrt(share * (1 - share) / num_trials + z2 / (4 * num_trials**2))
    half = Z_95 * spread / (1 + z2 / num_trials)
    return max(0.0, centre - half), min(1.0, centre + half)


def judge(maze: Maze, response: dict[str, Any]) -> Outcome:
    """The outcome of a response object. A response without an answer fails."""
    exits = [step.get("exit") for step in response["steps"] if step["type"] == "latent"]
    return Outcome(run_path(maze.rows, response.get("answer") or ""), "full" in exits)


def summarise(size: int, mazes: Sequence[Maze], outcomes: Sequence[Outcome]) -> SizeResult:
    """The row of one size."""
    count, num_right = len(mazes), sum(outcome.is_success for outcome in outcomes)
    return SizeResult(
        size=size,
        num_mazes=count,
        success=num_right / count,
        interval_95=wilson_interval(num_right, count),
        full_block=sum(outcome.has_full_block for outcome in outcomes) / count,
        straight_baseline=sum(run_path(maze.rows, straight_path(maze.rows)) for maze in mazes) / count,
    )


async def ask(client: httpx.AsyncClient, maze: Maze) -> Outcome:
    """Send one maze and judge the answer; a full queue (429, 503) is waited for."""
    png = io.BytesIO()
    draw_maze(maze.rows).save(png, format="PNG")
    data = base64.b64encode(png.getvalue()).decode()
    body = {"question": QUESTION, "images": [{"type": "base64", "media_type": "image/png", "data": data}]}
    for _ in range(MAX_RETRIES):
        response = await client.post("/v1/reason", json=body)
        if response.status_code not in (429, 503):
            break
        await asyncio.sleep(float(response.headers.get("Retry-After", "1")))
    response.raise_for_status()
    return judge(maze, response.json())


async def measure(client: httpx.AsyncClient, per_size: int, concurrency: int) -> list[SizeResult]:
    """Every size, at most ``concurrency`` requests at once."""
    slots = asyncio.Semaphore(concurrency)

    async def limited(maze: Maze) -> Outcome:
        async with slots:
            return await ask(client, maze)

    results = []
    for size in SIZES:
        mazes = distinct(size, "test", per_size)
        outcomes = await asyncio.gather(*(limited(maze) for maze in mazes))
        results.append(summarise(size, mazes, outcomes))
    return results


def table(results: Sequence[SizeResult]) -> str:
    """The results as a Markdown table, in percent."""
    lines = [
        "| size | unseen mazes | success % (95 % interval) | full latent block % | walks straight % |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in results:
        low, high = (100 * bound for bound in row.interval_95)
        lines.append(
            f"| {row.size}x{row.size} | {row.num_mazes} | {100 * row.success:.1f} ({low:.1f}-{high:.1f}) "
            f"| {100 * row.full_block:.1f} | {100 * row.straight_baseline:.1f} |"
        )
    return "\n".join(lines)


async def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="of the server (default %(default)s)")
    parser.add_argument("--per-size", type=int, default=500, help="mazes a size; 3x3 has 408 (default %(default)s)")
    parser.add_argument("--concurrency", type=int, default=16, help="requests at once (default %(default)s)")
    parser.add_argument("--out", type=Path, help="where to write the results as JSON")
    args = parser.parse_args(argv)
    started_s = time.monotonic()
    async with httpx.AsyncClient(base_url=args.url, timeout=TIMEOUT_S) as client:
        version = (await client.get("/version")).json()
        results = await measure(client, args.per_size, args.concurrency)
    print(table(results))
    report = {
        "command": "python -m benchmarks.maze_accuracy " + " ".join(sys.argv[1:] if argv is None else argv),
        "server": version,
        "machine": platform.processor() or platform.machine(),
        "seconds": round(time.monotonic() - started_s, 1),
        "results": [asdict(result) for result in results],
    }
    if args.out is not None:
        args.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
