"""(a) Output tokens a second of the served engine, beside plain transformers asked one request after the other."""

import time
from dataclasses import dataclass
from typing import Any

import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from benchmarks.decode.engines import Answers, ask, forget, served, set_threads, start_sequential
from benchmarks.decode.figures import Bar, PartReport, ratios, spread
from benchmarks.decode.models import EMBEDDED, BenchModel, load, without_latents
from benchmarks.decode.plan import Plan
from model_runner.engine.base import EngineRequest
from model_runner.engine.transformers_engine import TransformersEngine

# Times as fast as the sequential engine, at so many concurrent requests; and the sequential one over stock generate().
SPEEDUP_BARS = {EMBEDDED: (32, 10.0), "0.6B": (16, 6.0)}
GENERATE_BAR = 0.8

TEXT = """Output tokens a second, prompts and pictures included. Ours is the engine that is served, asked through the \
engine Protocol; sequential is `--engine transformers`, the published loop with a KV cache, asked the same requests \
one after the other; `generate()` is stock transformers (its own choice of attention) on the same checkpoint, beside \
which the sequential engine answers with latents off. Within a repetition all take turns, and a ratio is taken within \
a repetition; caches are emptied before each turn. Each request has a question and a picture of its own."""


@dataclass(frozen=True, slots=True)
class Turn:
    """How many requests are asked, and how many of them at once."""

    concurrency: int
    count: int


async def measure(plan: Plan) -> PartReport:
    raw: dict[str, Any] = {}
    rows, bars = [], []
    for name in plan.models:
        found = raw[name] = await measure_model(load(name), plan)
        rows += rows_of(name, found)
        bars += bars_of(name, found)
    header = ["model", "engine", "concurrent", "requests", "tokens/s", "times sequential", "latents, %"]
    return PartReport(key="a", title="(a) Throughput", text=TEXT, header=header, rows=rows, bars=bars, raw=raw)


async def measure_model(model: BenchModel, plan: Plan) -> dict[str, Any]:
    """Tokens a second by engine and repetition."""
    set_threads(plan.threads[model.name])
    sequential = start_sequential(model)
    stock = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        model.checkpoint.folder, dtype=getattr(torch, model.dtype)
    )
    stock.requires_grad_(False)
    turns = [turn_of(model.name, concurrency) for concurrency in plan.concurrencies]
    alone = plan.num_sequential[model.name]
    most = max(alone, *(turn.count for turn in turns))
    found: dict[str, Any] = {
        "threads": plan.threads[model.name],
        "counts": {f"{turn.concurrency}": turn.count for turn in turns},
        "sequential_count": alone,
        "ours": {f"{turn.concurrency}": [] for turn in turns},
        "sequential": [],
        "sequential_off": [],
        "generate": [],
    }
    async with served(model) as engine:
        await ask(engine, model.requests(8, 8, seed=1000), 8)
        await ask(sequential, model.requests(1, 8, seed=1000), 1)
        for repetition in range(plan.repetitions):
            requests = model.requests(most, plan.max_tokens[model.name], seed=repetition)
            slow = await ask(sequential, requests[:alone], 1)
            found["sequential"].append(slow.tokens_a_second)
            found["latents"] = {"sequential": share_of_pads(slow, model)}
            for turn in turns:
                await forget(engine)
                fast = await ask(engine, requests[: turn.count], turn.concurrency)
                found["ours"][f"{turn.concurrency}"].append(fast.tokens_a_second)
                found["latents"][f"{turn.concurrency}"] = share_of_pads(fast, model)
                check_equal(model, requests, fast, slow)
                plan.say(f"(a) {model.name}, {turn.concurrency} at once: {fast.tokens_a_second:.1f} tokens/s")
            few = without_latents(requests[: plan.num_generated[model.name]])
            off = await ask(sequential, few, 1)
            generated = [generate(stock, sequential, request, model) for request in few]
            seconds = sum(one for _, one in generated)
            found["sequential_off"].append(off.tokens_a_second)
            found["generate"].append(sum(len(ids) for ids, _ in generated) / seconds)
            if model.dtype == "float32" and [ids for ids, _ in generated] != off.ids:
                raise SystemExit("not measured: the sequential engine and generate() give different tokens")
            plan.say(f"(a) {model.name}, sequential: {slow.tokens_a_second:.1f} tokens/s, repetition {repetition + 1}")
    return found


def turn_of(name: str, concurrency: int) -> Turn:
    """The embedded model: 64 requests at any concurrency. The large one is slow: as many as at once, but at least 4."""
    return Turn(concurrency, 64 if name == EMBEDDED else max(4, concurrency))


def check_equal(model: BenchModel, requests: list[EngineRequest], fast: Answers, slow: Answers) -> None:
    """In float32 both engines give the same tokens. In bfloat16 rounding may tell them apart, and the lengths count.

    Raises:
        SystemExit: they do not, so that a comparison of speed would mean nothing.
    """
    both = list(zip(fast.ids, slow.ids, strict=False))
    if model.dtype == "float32" and any(ours != theirs for ours, theirs in both):
        raise SystemExit("not measured: the engines give different tokens")
    if model.dtype != "float32" and any(len(ids) != requests[0].sampling.max_tokens for ids in fast.ids + slow.ids):
        raise SystemExit("not measured: an answer ended before its time")


def share_of_pads(answers: Answers, model: BenchModel) -> float:
    return sum(ids.count(model.checkpoint.spec.pad_id) for ids in answers.ids) / answers.num_tokens


@torch.inference_mode()
def generate(
    stock: Any, sequential: TransformersEngine, request: EngineRequest, model: BenchModel
) -> tuple[tuple[int, ...], float]:
    """(ids, seconds) of stock ``generate()``, where the latent tokens are impossible."""
    spec = model.checkpoint.spec
    started_s = time.perf_counter()
    images = sequential._pixels(request)
    ids = sequential._expanded(request.prompt_ids, images)
    kinds = [int(token == model.checkpoint.image_token_id) for token in ids]
    output = stock.generate(
        input_ids=torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        mm_token_type_ids=torch.tensor([kinds]),
        max_new_tokens=request.sampling.max_tokens,
        do_sample=False,
        suppress_tokens=[spec.start_id, spec.pad_id, spec.end_id],
        eos_token_id=list(model.defaults.end_ids),
        pad_token_id=model.defaults.end_ids[0],
        **images,
    )
    return tuple(output[0, len(ids) :].tolist()), time.perf_counter() - started_s


def rows_of(name: str, found: dict[str, Any]) -> list[list[str]]:
    latents, alone = found["latents"], found["sequential"]
    count = f"{found['sequential_count']}"
    rows = [[name, "sequential", "1", count, spread(alone), "1", f"{100 * latents['sequential']:.0f}"]]
    for concurrency, rates in found["ours"].items():
        times = spread(ratios(rates, alone), 2)
        share = f"{100 * latents[concurrency]:.0f}"
        rows.append([name, "ours", concurrency, found["counts"][concurrency], spread(rates), times, share])
    rows.append([name, "sequential, latents off", "1", "", spread(found["sequential_off"]), "", "0"])
    rows.append([name, "`generate()`, latents off", "1", "", spread(found["generate"]), "", "0"])
    return [[str(cell) for cell in row] for row in rows]


def bars_of(name: str, found: dict[str, Any]) -> list[Bar]:
    concurrency, limit = SPEEDUP_BARS[name]
    bars = []
    rates = found["ours"].get(f"{concurrency}")
    if rates is not None:
        what = f"{name}: ours over sequential at {concurrency} concurrent"
        bars.append(Bar(what=what, values=ratios(rates, found["sequential"]), limit=limit, kind="at least"))
    what = f"{name}: sequential over `generate()`, latents off"
    values = ratios(found["sequential_off"], found["generate"])
    return [*bars, Bar(what=what, values=values, limit=GENERATE_BAR, kind="at least")]
