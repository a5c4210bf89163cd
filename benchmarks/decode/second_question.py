"""(e) Time to the first token of a second question about a picture, against the first."""

import statistics
from dataclasses import replace
from typing import Any

from benchmarks.decode.engines import ask, forget, served, set_threads
from benchmarks.decode.figures import Bar, PartReport, ratios, spread
from benchmarks.decode.models import EMBEDDED, BenchModel, load
from benchmarks.decode.plan import Plan
from model_runner.engine.base import EngineRequest
from model_runner.engine.vllm_engine import VllmEngine

BAR = 0.5
PICTURES = 6
SECOND_SEED = 7_000
KINDS = ("first", "second", "text")

LARGE_PX = 448  # 256 visual tokens, the most that the embedded model takes

TEXT = f"""One request at a time: milliseconds to the first token of a question about a picture, then of another \
question of the same length about the same picture, then of as many tokens of text alone, which is what a picture that \
costs nothing would leave; {PICTURES} pictures a repetition, and the median of them is the repetition's value. Encoder \
calls are counted by the engine."""


async def measure(plan: Plan) -> PartReport:
    raw: dict[str, Any] = {}
    rows, bars = [], []
    for name in plan.models:
        model = load(name)
        set_threads(plan.threads[name])
        async with served(model) as engine:
            for what, px in (("mazes", None), (f"{LARGE_PX} px", LARGE_PX))[name != EMBEDDED :]:
                found = raw[f"{name}, {what}"] = await measure_pictures(engine, model, px, plan)
                plan.say(f"(e) {name}, {what}: {found}")
    for where, found in raw.items():
        over = ratios(found["second"], found["first"])
        asked = PICTURES * len(over)
        calls = [f"{found[key]} of {asked}" for key in ("first_calls", "second_calls")]
        times = [spread(found[key]) for key in KINDS]
        rows.append([where, *times, spread(over, 2), spread(ratios(found["text"], found["first"]), 2), *calls])
        bars.append(Bar(what=f"{where}: second over first", values=over, limit=BAR, kind="at most"))
        count = [float(found["second_calls"])]
        bars.append(Bar(what=f"{where}: encoder calls of second", values=count, limit=0, kind="at most"))
    header = ["model, picture", "first, ms", "second, ms", "text alone, ms", "second over first", "text over first"]
    header += ["encoder calls, first", "second"]
    title = "(e) A second question about a picture"
    return PartReport(key="e", title=title, text=TEXT, header=header, rows=rows, bars=bars, raw=raw)


async def measure_pictures(engine: VllmEngine, model: BenchModel, px: int | None, plan: Plan) -> dict[str, Any]:
    """Milliseconds by repetition, and encoder calls of all that count. px: None for the model's own pictures."""
    found: dict[str, Any] = {kind: [] for kind in KINDS} | {f"{kind}_calls": 0 for kind in KINDS}
    for repetition in range(-1, plan.second_repetitions[model.name]):  # the first does not count
        first = model.requests(PICTURES, 1, seed=repetition + 50, px=px)
        second = [
            replace(one, request_id=f"again-{one.request_id}", prompt_ids=other)
            for one, other in zip(first, model.other_questions(first, SECOND_SEED), strict=True)
        ]
        text = [text_of_the_same_length(model, request, seed) for seed, request in enumerate(first, 100 * repetition)]
        await forget(engine)
        ms: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for asked in zip(first, second, text, strict=True):
            for key, request in zip(KINDS, asked, strict=True):
                before = (await engine.stats()).model["images_encoded"]
                ms[key].append(1000 * (await ask(engine, [request], 1)).first_s[0])
                if repetition >= 0:
                    found[f"{key}_calls"] += (await engine.stats()).model["images_encoded"] - before
        if repetition >= 0:
            for key, of_pictures in ms.items():
                found[key].append(statistics.median(of_pictures))
    return found


def text_of_the_same_length(model: BenchModel, request: EngineRequest, seed: int) -> EngineRequest:
    num_tokens = len(request.prompt_ids) - 1 + model.tokens_of_image(request.images[0].rgb.size)
    return replace(
        request, request_id=f"text-{request.request_id}", prompt_ids=model.text_ids(num_tokens, seed), images=()
    )
