"""(g) A history with latent blocks: its pads computed a step each, or replayed in one chunk."""

import time
from typing import Any

from benchmarks.decode.engines import ask, forget, served, set_threads
from benchmarks.decode.figures import PartReport, ratios, spread
from benchmarks.decode.models import BenchModel, load
from benchmarks.decode.plan import Plan
from model_runner.engine.base import EngineRequest, SamplingSettings

TEXT_TOKENS = 16  # before each block
MANY = 1000

TEXT = f"""Seconds to the first token of a request whose history holds latent blocks, each after {TEXT_TOKENS} tokens \
of text, on an empty cache: as served (`--max-replayed-pads 0`), where a chunk ends before a pad and each pad takes a \
step, and with `--max-replayed-pads {MANY}`, where the chunk is one and is run again until its latents stand still. \
Two engines take turns. There is no bar."""


async def measure(plan: Plan) -> PartReport:
    raw: dict[str, Any] = {}
    rows = []
    for name in plan.models:
        model = load(name)
        set_threads(plan.threads[name])
        async with served(model) as split, served(model, max_replayed_pads=MANY) as replaying:
            for num_blocks in plan.block_counts[name]:
                found: dict[str, list[float]] = {"split": [], "replayed": []}
                for repetition in range(-1, plan.repetitions):
                    for key, engine in (("split", split), ("replayed", replaying)):
                        await forget(engine)
                        request = request_of(model, num_blocks, repetition)
                        seconds = (await ask(engine, [request], 1)).first_s[0]
                        if repetition >= 0:
                            found[key].append(seconds)
                raw[f"{name}, {num_blocks} blocks"] = found
                over = spread(ratios(found["replayed"], found["split"]), 2)
                tokens = len(request_of(model, num_blocks, 0).prompt_ids)
                rows.append([name, f"{num_blocks}", f"{tokens}", *(spread(one, 3) for one in found.values()), over])
                plan.say(f"(g) {name}, {num_blocks} blocks: replayed over split {over}")
    header = ["model", "blocks", "tokens", "a step each, s", "replayed, s", "replayed over a step each"]
    title = "(g) A history with latent blocks"
    return PartReport(key="g", title=title, text=TEXT, header=header, rows=rows, raw=raw)


def request_of(model: BenchModel, num_blocks: int, seed: int) -> EngineRequest:
    spec = model.checkpoint.spec
    block = (spec.start_id, *[spec.pad_id] * spec.size, spec.end_id)
    texts = [model.text_ids(TEXT_TOKENS, 100 * (seed + 1) + index) for index in range(num_blocks)]
    return EngineRequest(
        request_id=f"{time.monotonic_ns()}",
        prompt_ids=tuple(token for text in texts for token in (*text, *block)),
        sampling=SamplingSettings(max_tokens=1),
    )
