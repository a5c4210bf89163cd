"""(b) Milliseconds of a latent step over those of a text step. (f) What skipping the head saves where it is known what
comes next."""

import statistics
import time
from dataclasses import dataclass
from typing import Any

from benchmarks.decode.engines import CLOCKED, ask, forget, served, set_threads
from benchmarks.decode.figures import Bar, PartReport, decode_intervals, ratios, spread
from benchmarks.decode.models import LONG_BLOCK, BenchModel, endless, load_with_long_blocks
from benchmarks.decode.plan import Plan
from model_runner.engine.base import EngineRequest, SamplingSettings
from model_runner.engine.vllm_engine import VllmEngine

BAR = 1.05
PROMPT_TOKENS = 48

TEXT = f"""Milliseconds from the begin of one step to that of the next, on the engine's own clock, where all requests \
decode in step: latent, all rows inside a block of {LONG_BLOCK}, after prompts that end with START; text, no row is, \
after prompts of the same length that do not. Both are at the same positions, on one engine, and take turns in both \
orders; a value is the median of the steps of a turn. The head runs in latent steps as in text steps, as it must \
where blocks are `learned`."""

SKIP_TEXT = """The same steps where blocks are `fixed`: the engine may skip the head for rows whose next token is \
known: here all of them or every second one, the latter where the head is large enough to pay for it. That may make no \
step slower: it is asked to gain something where all are known, and \
not to lose more than the latent step may where half are."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Of a step: which rows are latent, every how many-th, and whether the head is skipped where it may be."""

    name: str
    latent_every: int  # 0: none, 1: all, 2: every second row
    skips: bool

    def is_latent(self, row: int) -> bool:
        return self.latent_every > 0 and row % self.latent_every == 0


TEXT_STEP, LATENT_STEP, SKIPPED = "text", "latent", "latent, head skipped"
HALF, HALF_SKIPPED = "half latent", "half latent, head skipped"
ALL_ROWS = (Kind(TEXT_STEP, 0, False), Kind(LATENT_STEP, 1, False), Kind(SKIPPED, 1, True))
HALF_OF_ROWS = (Kind(HALF, 2, False), Kind(HALF_SKIPPED, 2, True))


async def measure(plan: Plan) -> tuple[PartReport, PartReport]:
    """(b) and (f), of the same engines."""
    raw: dict[str, Any] = {}
    for name in plan.models:
        model = endless(load_with_long_blocks(name))
        set_threads(plan.threads[name])
        async with served(model, CLOCKED) as engine:
            for batch in plan.batches:
                found = raw[f"{name}, batch {batch}"] = await in_turns(engine, model, batch, plan)
                told = ", ".join(f"{kind} {spread(ms, 2)} ms" for kind, ms in found.items())
                plan.say(f"(b) (f) {name}, batch {batch}: {told}")
    return report_latent(raw), report_skipped(raw)


def report_latent(raw: dict[str, Any]) -> PartReport:
    rows, bars = [], []
    for where, found in raw.items():
        over = ratios(found[LATENT_STEP], found[TEXT_STEP])
        rows.append([where, spread(found[TEXT_STEP], 2), spread(found[LATENT_STEP], 2), spread(over, 3)])
        bars.append(Bar(what=where, values=over, limit=BAR, kind="at most"))
    header = ["model", "text, ms", "latent, ms", "latent over text"]
    return PartReport(key="b", title="(b) A latent step", text=TEXT, header=header, rows=rows, bars=bars, raw=raw)


def report_skipped(raw: dict[str, Any]) -> PartReport:
    rows, bars = [], []
    for where, found in raw.items():
        for computed, skipped, share, limit in ((LATENT_STEP, SKIPPED, "all", 1.0), (HALF, HALF_SKIPPED, "half", BAR)):
            if skipped not in found:
                continue
            over = ratios(found[skipped], found[computed])
            rows.append([where, share, spread(found[computed], 2), spread(found[skipped], 2), spread(over, 3)])
            bars.append(Bar(what=f"{where}, {share} latent", values=over, limit=limit, kind="at most"))
    header = ["model", "latent rows", "head computed, ms", "head skipped, ms", "skipped over computed"]
    title = "(f) A latent step without the head"
    return PartReport(key="f", title=title, text=SKIP_TEXT, header=header, rows=rows, bars=bars)


async def in_turns(engine: VllmEngine, model: BenchModel, batch: int, plan: Plan) -> dict[str, list[float]]:
    """Milliseconds of a step of each kind, a value a turn; the order is turned round with each repetition."""
    kinds = ALL_ROWS + (HALF_OF_ROWS if batch > 1 else ())
    found: dict[str, list[float]] = {kind.name: [] for kind in kinds}
    for repetition in range(-1, plan.num_turns[model.name]):  # the first does not count
        for kind in kinds[:: 1 if repetition % 2 else -1]:
            await engine.worker_call("skip_known_rows", kind.skips)
            ms = await one_turn(engine, model, batch, plan, kind, seed=1000 * (repetition + 1))
            if repetition >= 0:
                found[kind.name].append(ms)
    return found


async def one_turn(engine: VllmEngine, model: BenchModel, batch: int, plan: Plan, kind: Kind, *, seed: int) -> float:
    """The median of the steps of a batch that starts together.

    Raises:
        SystemExit: a row was of the other kind.
    """
    await forget(engine)
    await engine.worker_call("take_steps")
    num_steps = plan.num_steps[model.name]
    requests = [request_of(model, seed + row, num_steps, is_latent=kind.is_latent(row)) for row in range(batch)]
    answers = await ask(engine, requests, batch)
    steps = await engine.worker_call("take_steps")
    pad_id = model.checkpoint.spec.pad_id
    for row, ids in enumerate(answers.ids):
        if (set(ids) != {pad_id}) if kind.is_latent(row) else (pad_id in ids):
            raise SystemExit(f"not measured: row {row} was not what {kind.name} says")
    return 1000 * statistics.median(decode_intervals(steps, batch))


def request_of(model: BenchModel, seed: int, num_steps: int, *, is_latent: bool) -> EngineRequest:
    ids = model.text_ids(PROMPT_TOKENS - 1, seed)
    last = model.checkpoint.spec.start_id if is_latent else model.text_ids(1, seed + 1)[0]
    return EngineRequest(
        request_id=f"{time.monotonic_ns()}",
        prompt_ids=(*ids, last),
        sampling=SamplingSettings(max_tokens=num_steps),
    )
