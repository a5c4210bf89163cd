"""Where the time of a step goes."""

import time
from typing import Any

from benchmarks.decode.engines import ask, forget, served, set_threads
from benchmarks.decode.figures import PartReport
from benchmarks.decode.models import EMBEDDED, load
from benchmarks.decode.plan import Plan

PROFILED = {"worker_cls": "benchmarks.decode.profiled_worker.ProfiledWorker"}
CONCURRENCY = {EMBEDDED: 32, "0.6B": 16}
NUM_REQUESTS = {EMBEDDED: 128, "0.6B": 32}

TEXT = """Requests as in (a), at 32 (embedded) and 16 (0.6B) concurrent; mean of all steps, prompts and pictures \
among them, of the last of two runs. A line in italics is what its part takes besides the parts in it. *Engine core* \
is the scheduler, outputs, and talk with the front end; the front end is another process, which works at the same \
time and is given in processor time."""

# Part -> what it lies in; see ``profiled_worker``.
INSIDE = {
    "execute": "step",
    "sample": "step",
    "encoder": "execute",
    "forward": "execute",
    "head": "execute",
    "linear": "forward",
    "attention": "forward",
    "norm": "forward",
    "rotary": "forward",
    "inject": "forward",
    "commit": "forward",
    "sampler": "sample",
    "block rule": "sampler",
}
REST = {
    "step": "engine core",
    "execute": "inputs and the rest of the runner",
    "forward": "the rest of the language model",
    "sample": "the rest of sampling",
    "sampler": "vLLM's sampler",
}


async def measure(plan: Plan) -> PartReport:
    raw: dict[str, Any] = {}
    rows = []
    for name in plan.models:
        found = raw[name] = await profile(name, plan)
        rows += [[name, *row] for row in rows_of(found)]
        plan.say(f"(profile) {name}: {found['ms']['step']:.2f} ms a step")
    header = ["model", "part", "ms a step", "share, %"]
    text = " ".join([TEXT, *(f"Most of it, {name}: {largest(found)}." for name, found in raw.items())])
    return PartReport(key="profile", title="Where a step's time goes", text=text, header=header, rows=rows, raw=raw)


async def profile(name: str, plan: Plan) -> dict[str, Any]:
    model = load(name)
    set_threads(plan.threads[name])
    async with served(model, PROFILED) as engine:
        for run in range(2):
            requests = model.requests(NUM_REQUESTS[name], plan.max_tokens[name], seed=run)
            await forget(engine)
            before = await engine.worker_call("take_seconds")
            front_s = time.process_time()
            answers = await ask(engine, requests, CONCURRENCY[name])
            front_s = time.process_time() - front_s
            seconds = await engine.worker_call("take_seconds")
    steps = seconds.pop("steps")
    cpu_s = seconds.pop("cpu") - before["cpu"]
    return {
        "ms": {part: 1000 * one / steps for part, one in seconds.items()},
        "steps": steps,
        "tokens_a_second": answers.tokens_a_second,
        "front_end_cpu_ms": 1000 * front_s / steps,
        "engine_cpu_ms": 1000 * cpu_s / steps,
    }


def largest(found: dict[str, Any], count: int = 4) -> str:
    """The parts that hold no other and take most, with their shares."""
    ms: dict[str, float] = found["ms"]
    outer = set(INSIDE.values())
    own = {part: one for part, one in ms.items() if part not in outer}
    for part, name in REST.items():
        own[name] = ms[part] - sum(ms[inner] for inner, around in INSIDE.items() if around == part and inner in ms)
    most = sorted(own, key=own.__getitem__, reverse=True)[:count]
    return ", ".join(f"{part} {100 * own[part] / ms['step']:.0f} %" for part in most)


def rows_of(found: dict[str, Any]) -> list[list[str]]:
    """Parts, each beneath what it lies in, and what is left of that."""
    ms: dict[str, float] = found["ms"]
    whole = ms["step"]

    def beneath(outer: str, depth: int) -> list[list[str]]:
        rows = []
        inner = [part for part, around in INSIDE.items() if around == outer and part in ms]
        for part in sorted(inner, key=ms.__getitem__, reverse=True):
            rows.append(_row(depth, part, ms[part], whole))
            rows += beneath(part, depth + 1)
        if inner:
            rest = ms[outer] - sum(ms[part] for part in inner)
            rows.append(_row(depth, f"*{REST[outer]}*", rest, whole))
        return rows

    counted = f"{found['steps']:.0f} steps, {found['tokens_a_second']:.0f} tokens/s"
    front = ["front end, processor time", f"{found['front_end_cpu_ms']:.2f}", ""]
    return [[f"step ({counted})", f"{whole:.2f}", "100"], *beneath("step", 1), front]


def _row(depth: int, part: str, ms: float, whole: float) -> list[str]:
    return ["· " * depth + part, f"{ms:.2f}", f"{100 * ms / whole:.1f}"]
