"""(a) Output tokens a second of the served engine, beside plain transformers asked one request after the other."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from benchmarks.decode.engines import Answers, ask, forget, served, set_threads, start_sequential
from benchmarks.decode.figures import Bar, PartReport, ratios, spread
from benchmarks.decode.models import EMBEDDED, RANDOM, BenchModel, endless, load, without_latents
from benchmarks.decode.plan import Plan
from model_runner.cores import leave_cores, use_all_cores
from model_runner.engine.base import EngineRequest
from model_runner.engine.transformers_engine import TransformersEngine

# Times as fast as the sequential engine, at so many concurrent requests; and the sequential one over stock generate().
SPEEDUP_BARS = {EMBEDDED: (32, 10.0), RANDOM: (16, 6.0)}
GENERATE_BAR = 0.8

TEXT = """Output tokens a second, prompts and pictures included. Ours is the engine that is served, asked through the \
engine Protocol; sequential is `--engine transformers`, the published loop with a KV cache, asked the same requests \
one after the other; `generate()` is stock transformers (its own choice of attention) on the same checkpoint, beside \
which the sequential engine answers with latents off. Within a repetition all take turns, the sequential engine \
before ours and after it, and a ratio is taken within a repetition; caches are emptied before each turn. Ours keeps \
to the cores that its engine leaves, as where it is served; plain transformers may use any core. Each request has a \
question and a picture of its own. Answers are of a fixed length, as is usual where decoding is measured, and it is \
of these that a speed-up is asked; but *own answers* end where the model ends them: so short that half of the \
work is prompts and pictures, of which a batch makes little."""


@dataclass(frozen=True, slots=True)
class Workload:
    """A model, and how long its answers are at most."""

    label: str
    model: BenchModel
    max_tokens: int


def workloads(name: str, plan: Plan) -> list[Workload]:
    """Answers of a fixed length; those of the random weights have no end of their own."""
    model, length = load(name), plan.max_tokens[name]
    if name != EMBEDDED:
        return [Workload(name, model, length)]
    return [Workload(name, endless(model), length), Workload(f"{name}, own answers", model, length)]


@dataclass(frozen=True, slots=True)
class Turn:
    """How many requests are asked, and how many of them at once."""

    concurrency: int
    count: int


async def measure(plan: Plan) -> PartReport:
    raw: dict[str, Any] = {}
    rows, bars = [], []
    for load_of in (one for name in plan.models for one in workloads(name, plan)):
        found = raw[load_of.label] = await measure_workload(load_of, plan)
        rows += rows_of(load_of.label, found)
        bars += bars_of(load_of.label, found)
    counts = ["concurrent", "requests", "tokens an answer", "latents, %"]
    header = ["model", "engine", *counts, "tokens/s", "times sequential"]
    return PartReport(key="a", title="(a) Throughput", text=TEXT, header=header, rows=rows, bars=bars, raw=raw)


async def measure_workload(load_of: Workload, plan: Plan) -> dict[str, Any]:
    """Tokens a second by engine and repetition."""
    model, label = load_of.model, load_of.label
    set_threads(plan.threads[model.name])
    sequential = start_sequential(model)
    stock = load_stock(model)
    turns = [turn_of(model.name, concurrency) for concurrency in plan.concurrencies]
    alone = plan.num_sequential[model.name]
    most = max(alone, *(turn.count for turn in turns))
    found: dict[str, Any] = {
        "threads": plan.threads[model.name],
        "counts": {f"{turn.concurrency}": turn.count for turn in turns},
        "sequential_count": alone,
        "generated_count": plan.num_generated[model.name],
        "ours": {f"{turn.concurrency}": [] for turn in turns},
        "sequential": [],
        "sequential_off": [],
        "generate": [],
    }
    async with served(model) as engine:
        await ask(engine, model.requests(8, 8, seed=1000), 8)
        await ask(sequential, model.requests(1, 8, seed=1000), 1)
        for repetition in range(plan.throughput_repetitions[model.name]):
            requests = model.requests(most, load_of.max_tokens, seed=repetition)
            with all_cores(found["threads"]):
                before = await ask(sequential, requests[: alone // 2], 1)
            by_turn: dict[str, Answers] = {}
            for turn in turns:
                await forget(engine)
                fast = by_turn[f"{turn.concurrency}"] = await ask(engine, requests[: turn.count], turn.concurrency)
                plan.say(f"(a) {label}, {turn.concurrency} at once: {fast.tokens_a_second:.1f} tokens/s")
            few = without_latents(requests[: plan.num_generated[model.name]])
            with all_cores(found["threads"]):
                slow = before + await ask(sequential, requests[alone // 2 : alone], 1)
                off, generated = await beside_generate(stock, sequential, few, model)
            found["sequential"].append(slow.tokens_a_second)
            found["latents"], found["length"] = {}, {}
            for key, answers in {"sequential": slow, **by_turn}.items():
                found["latents"][key] = share_of_pads(answers, model)
                found["length"][key] = answers.num_tokens / len(answers.ids)
            for key, answers in by_turn.items():
                found["ours"][key].append(answers.tokens_a_second)
                check_equal(model, requests, answers, slow)
            found["sequential_off"].append(off)
            found["generate"].append(generated)
            plan.say(f"(a) {label}, sequential: {slow.tokens_a_second:.1f} tokens/s, repetition {repetition + 1}")
    return found


def load_stock(model: BenchModel) -> Any:
    """Plain transformers, with its own choice of attention."""
    stock = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        model.checkpoint.folder, dtype=getattr(torch, model.dtype)
    )
    return stock.requires_grad_(False)


async def beside_generate(
    stock: Any, sequential: TransformersEngine, requests: list[EngineRequest], model: BenchModel
) -> tuple[float, float]:
    """Tokens a second of the sequential engine and of stock ``generate()``, for requests without latents.

    Raises:
        SystemExit: in float32 they gave different tokens.
    """
    off = await ask(sequential, requests, 1)
    generated = [generate(stock, sequential, request, model) for request in requests]
    if model.dtype == "float32" and [ids for ids, _ in generated] != off.ids:
        raise SystemExit("not measured: the sequential engine and generate() give different tokens")
    return off.tokens_a_second, sum(len(ids) for ids, _ in generated) / sum(seconds for _, seconds in generated)


@contextmanager
def all_cores(num_threads: int) -> Iterator[None]:
    """As where plain transformers runs by itself. Beside our engine of so many threads this process keeps to others."""
    use_all_cores()
    try:
        yield
    finally:
        leave_cores(num_threads)


def turn_of(name: str, concurrency: int) -> Turn:
    """Of the embedded model several for each place, so that the begin and the end weigh little. The large one is slow:
    as many as at once, but at least 4."""
    return Turn(concurrency, min(max(8, 4 * concurrency), 192) if name == EMBEDDED else max(4, concurrency))


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
    def asked(key: str, concurrency: str, count: int) -> list[str]:
        return [concurrency, f"{count}", f"{found['length'][key]:.0f}", f"{100 * found['latents'][key]:.0f}"]

    alone = found["sequential"]
    rows = [[name, "sequential", *asked("sequential", "1", found["sequential_count"]), spread(alone), "1"]]
    for concurrency, rates in found["ours"].items():
        times = spread(ratios(rates, alone), 2)
        count = found["counts"][concurrency]
        rows.append([name, "ours", *asked(concurrency, concurrency, count), spread(rates), times])
    off = ["1", f"{found['generated_count']}", "", "0"]
    rows.append([name, "sequential, latents off", *off, spread(found["sequential_off"]), ""])
    rows.append([name, "`generate()`, latents off", *off, spread(found["generate"]), ""])
    return rows


def bars_of(name: str, found: dict[str, Any]) -> list[Bar]:
    bars = []
    concurrency, limit = SPEEDUP_BARS.get(name, (0, 0.0))
    rates = found["ours"].get(f"{concurrency}")
    if rates is not None:
        what = f"{name}: ours over sequential at {concurrency} concurrent"
        bars.append(Bar(what=what, values=ratios(rates, found["sequential"]), limit=limit, kind="at least"))
    what = f"{name}: sequential over `generate()`, latents off"
    values = ratios(found["sequential_off"], found["generate"])
    return [*bars, Bar(what=what, values=values, limit=GENERATE_BAR, kind="at least")]
