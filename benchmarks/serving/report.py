"""Two files: JSON, which holds each model as it was measured last, and a page made from it."""

import json
from itertools import chain
from pathlib import Path
from typing import Any

from benchmarks.decode.environment import sentence
from benchmarks.decode.figures import Bar, PartReport, ratios, spread
from benchmarks.decode.models import EMBEDDED as EMBEDDED_MODEL
from benchmarks.decode.models import RANDOM
from benchmarks.serving.contenders import EMBEDDED, REDIS, SEQUENTIAL, STOCK
from benchmarks.serving.measure import RATE_CONCURRENCY, SLOW_MS, Found, is_held

OVER_STOCK, OVER_OURS, LATER_MS, GENERATE = 0.95, 0.9, 10.0, 0.8
OVER_SEQUENTIAL = {EMBEDDED_MODEL: (32, 8.0), RANDOM: (16, 5.0)}

HEAD = f"""# The service beside what a user would run instead

Four servers on one machine, with the same weights, asked the same streamed chat completions of one picture and one \
question each (no two alike) by one client on the same cores:

* **{EMBEDDED}**: `ilvr serve`;
* **{REDIS}**: Redis, one `ilvr gateway` and one `ilvr runner`;
* **{STOCK}**: vLLM's OpenAI server with its own Qwen2.5-VL class and worker, to which latent tokens are words: what \
the gateway costs, and latents. So that nothing else differs it has the settings of our engine (eager, where vLLM \
would compile), our image processor and our kernels for a CPU (`benchmarks/peers/stock.py`);
* **{SEQUENTIAL}**: plain transformers behind FastAPI, one request after the other (`benchmarks/peers/sequential.py`).

All are up at the same time and take turns, in both orders; a ratio is taken within a repetition. End tokens are \
ignored and answers are of a fixed length, counted in positions: text tokens and latent steps. Time to the first step \
is from when the request was sent (in the open loop: was due) until the first text of the answer was read. It is the \
first chunk of text in all cases; {EMBEDDED} and {REDIS} send text that comes within 50 ms together, vLLM's server and \
{SEQUENTIAL} each token. Models as in `decode.md`. Values are medians with their range over repetitions.
"""
FOOT = """Not measured: a GPU, models of published size, a network, prompts of thousands of tokens, more than one \
runner. The client shares the two cores with whoever answers.
"""


def parts_of(name: str, found: Found) -> list[PartReport]:
    return [part for part in (_closed(name, found), _open(name, found), _memory(name, found)) if part is not None]


def _values(found: Found, of: str, concurrency: str, field: str) -> list[float]:
    return [turn[field] for turn in found["closed"][of][concurrency]]


def _closed(name: str, found: Found) -> PartReport:
    rows = []
    for concurrency in found["closed"][EMBEDDED]:
        for of in found["closed"]:
            speed = _values(found, of, concurrency, "tokens_a_second")
            over = ratios(speed, _values(found, EMBEDDED, concurrency, "tokens_a_second"))
            first = (spread(_values(found, of, concurrency, f"first_{p}_ms")) for p in ("p50", "p99"))
            requests = f"{found['closed'][of][concurrency][0]['requests']}"
            rows.append([concurrency, of, requests, spread(speed), spread(over, 2), *first])
    text = f"Answers of {found['max_tokens']} positions, closed loop. Ours is 1 in the column of ratios."
    header = ["concurrent", "server", "requests", "tokens/s", "over ours", "first step p50, ms", "p99, ms"]
    return PartReport(
        key=f"{name} closed", title=f"{name}: at once", text=text, header=header, rows=rows, bars=_bars(name, found)
    )


def _bars(name: str, found: Found) -> list[Bar]:
    def over(one: str, other: str, concurrency: str) -> list[float]:
        return ratios(*(_values(found, of, concurrency, "tokens_a_second") for of in (one, other)))

    bars = []
    if name == EMBEDDED_MODEL and "32" in found["closed"][EMBEDDED]:
        first = [_values(found, of, "32", "first_p50_ms") for of in (EMBEDDED, STOCK)]
        later = [one - other for one, other in zip(*first, strict=True)]
        bars = [
            Bar(what=f"{EMBEDDED} over {STOCK}, 32 at once", values=over(EMBEDDED, STOCK, "32"), limit=OVER_STOCK,
                kind="at least"),
            Bar(what=f"{EMBEDDED} later than {STOCK} with the first step (p50, ms), 32 at once", values=later,
                limit=LATER_MS, kind="at most"),
            Bar(what=f"{REDIS} over {EMBEDDED}, 32 at once", values=over(REDIS, EMBEDDED, "32"), limit=OVER_OURS,
                kind="at least"),
        ]  # fmt: skip
    concurrency, limit = OVER_SEQUENTIAL[name]
    if f"{concurrency}" in found["closed"][EMBEDDED]:
        values = over(EMBEDDED, SEQUENTIAL, f"{concurrency}")
        what = f"{EMBEDDED} over {SEQUENTIAL}, {concurrency} at once"
        bars.append(Bar(what=what, values=values, limit=limit, kind="at least"))
    values = ratios(*zip(*found["generate"], strict=True))
    what = "the loop of the sequential server over stock `generate()`, latents off, without HTTP"
    return [*bars, Bar(what=what, values=values, limit=GENERATE, kind="at least")]


def _open(name: str, found: Found) -> PartReport | None:
    if not found["open"]:
        return None
    ours = [_best(turns) for turns in found["open"][EMBEDDED]]
    rows = []
    for of, repetitions in found["open"].items():
        best = [_best(turns) for turns in repetitions]
        is_end_known = not all(is_held(turns[-1]) and is_held(turns[0]) for turns in repetitions)
        over = [one / other for one, other in zip(best, ours, strict=True) if other]
        by_rate: dict[float, list[float]] = {}
        for turn in chain(*repetitions):
            by_rate.setdefault(turn["rate"], []).append(turn["first_p99_ms"])
        each = "; ".join(f"{rate:.1f}: {', '.join(f'{ms:.0f}' for ms in p99)}" for rate, p99 in sorted(by_rate.items()))
        row = [of, ("" if is_end_known else "at least ") + spread(best), spread(over, 2) if over else "", each]
        rows.append(row)
    text = (
        f"Requests come as a Poisson process, whatever the answers do. Rates are shares of what the server answered "
        f"with {RATE_CONCURRENCY} at once. Each repetition rises until the first step of more than 1 % takes longer "
        f"than {SLOW_MS / 1000:g} s or one is refused, and falls where the first rate is too much already; at each "
        f"rate the servers take turns. 0: no rate that was tried was held. *At least*: the highest was held in all "
        f"repetitions. A value between two rates is not known, and of servers that answer few requests in a turn p99 "
        f"is the slowest."
    )
    header = ["server", "highest rate held, requests/s", "over ours", "p99 of the first step in ms, by rate"]
    return PartReport(key=f"{name} open", title=f"{name}: at a rate", text=text, header=header, rows=rows)


def _best(turns: list[Found]) -> float:
    """The highest rate of one repetition that was held."""
    return max((turn["rate"] for turn in turns if is_held(turn)), default=0.0)


def _memory(name: str, found: Found) -> PartReport:
    rows = [[of, f"{mib:.0f}"] for of, mib in found["memory_mib"].items()]
    text = (
        "All processes of a server after its turns, beside the others: of pages that several processes share each "
        "counts its part (PSS), so a server alone takes more. The KV cache is the default of 512 MiB, where there is "
        "one."
    )
    return PartReport(key=f"{name} memory", title=f"{name}: memory", text=text, header=["server", "MiB"], rows=rows)


def read(path: Path) -> dict[str, Any]:
    """By model what was measured before; nothing if there is no file."""
    content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return content


def write(folder: Path, measured: dict[str, Any]) -> str:
    """``serving.json`` and ``serving.md``, whose text is returned. ``measured``: by model ``found`` and
    ``environment``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "serving.json").write_text(json.dumps(measured, indent=1) + "\n")
    lines = [HEAD]
    for name, one in measured.items():
        lines += [part.markdown() for part in parts_of(name, one["found"])]
        lines += [sentence(one["environment"], {name: one["found"]["threads"]}) + "\n"]
    text = "\n".join([*lines, FOOT])
    (folder / "serving.md").write_text(text)
    return text


def all_met(measured: dict[str, Any]) -> bool:
    """Of the models that were measured."""
    return all(bar.is_met for name, one in measured.items() for bar in _bars(name, one["found"]))
