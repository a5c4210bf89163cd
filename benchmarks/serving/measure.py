"""Turns of all contenders, one after the other, on one model."""

import base64
import io
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.decode.engines import set_threads, start_sequential
from benchmarks.decode.models import BenchModel, endless, load, without_latents
from benchmarks.decode.throughput import beside_generate, load_stock
from benchmarks.serving.client import Turn, closed, open_loop
from benchmarks.serving.contenders import EMBEDDED, NAMES, REDIS, SEQUENTIAL, Contender, contenders
from benchmarks.serving.plan import FIRST_RATE, Plan

RATE_CONCURRENCY = 32  # whose throughput is the measure of the open loop's rates
SLOW_MS = 1000.0
WARM_UP = 16

Found = dict[str, Any]


def bodies(model: BenchModel, count: int, max_tokens: int, seed: int) -> list[dict[str, Any]]:
    """Chat completions as every contender takes them; no two of any seeds are alike."""
    return [
        {
            "messages": [{"role": "user", "content": [_image(picture), {"type": "text", "text": question}]}],
            "temperature": 0,
            "max_tokens": max_tokens,
            "ignore_eos": True,  # to vLLM's server; the checkpoint of the others has no end
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        for question, picture in model.questions(count, seed)
    ]


def _image(picture: Any) -> dict[str, Any]:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return {
        "type": "image_url",
        "image_url": {"url": f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"},
    }


async def measure(name: str, plan: Plan, say: Callable[[str], None]) -> Found:
    """What `report.py` makes its tables of: of each turn tokens a second and the times to the first step, by contender
    and concurrency."""
    model = load(name)
    set_threads(plan.threads[name])
    stock, sequential = load_stock(model), start_sequential(endless(model))
    found: Found = {
        "threads": plan.threads[name],
        "max_tokens": plan.max_tokens[name],
        "closed": {of: {f"{count}": [] for count in plan.repetitions[name]} for of in NAMES},
        "open": {},
        "generate": [],
    }
    with contenders(model, plan.threads[name]) as of:
        say(f"{name}: all are ready")
        for contender in of.values():
            await closed(contender, bodies(model, WARM_UP, 8, seed=10_000), 8)
        for repetition in range(max(plan.repetitions[name].values())):
            names = NAMES[:: -1 if repetition % 2 else 1]
            wanted = [count for count, most in plan.repetitions[name].items() if repetition < most]
            for place, concurrency in enumerate(wanted):
                turns = {}
                for one in names:
                    count = plan.count(name, concurrency, is_sequential=one == SEQUENTIAL)
                    asked = bodies(model, count, plan.max_tokens[name], seed=100 * repetition + place)
                    turn = turns[one] = await closed(of[one], asked, concurrency)
                    found["closed"][one][f"{concurrency}"].append(figures(turn))
                    say(f"{name}, {concurrency} at once, {one}: {turn.tokens_a_second:.0f} tokens/s")
                check(turns, model, plan.max_tokens[name])
            few = without_latents(model.requests(plan.num_generated[name], plan.max_tokens[name], seed=repetition))
            found["generate"].append(await beside_generate(stock, sequential, few, endless(model)))
        for repetition in range(plan.rate_repetitions if plan.rates[name] else 0):
            for one, turns_of in (await at_rates(of, model, plan, found, say, repetition)).items():
                found["open"].setdefault(one, []).append(turns_of)
        found["memory_mib"] = {one: contender.memory_mib() for one, contender in of.items()}
    return found


def figures(turn: Turn) -> dict[str, float]:
    return {
        "requests": len(turn.answers),
        "tokens_a_second": turn.tokens_a_second,
        "first_p50_ms": turn.first_ms(50),
        "first_p99_ms": turn.first_ms(99),
    }


def check(turns: dict[str, Turn], model: BenchModel, max_tokens: int) -> None:
    """All were asked the same and gave as much; in float32 the same text where latents are latents.

    Raises:
        SystemExit: they did not, so that a comparison of speed would mean nothing.
    """
    for name, turn in turns.items():
        for mine, answer in zip(turns[EMBEDDED].answers, turn.answers, strict=False):
            if answer.completion_tokens != max_tokens or answer.prompt_tokens != mine.prompt_tokens:
                raise SystemExit(
                    f"not measured: {name} computed {answer.prompt_tokens} and {answer.completion_tokens} tokens where "
                    f"{mine.prompt_tokens} and {max_tokens} were due"
                )
            if name == REDIS and model.dtype == "float32" and answer.text != mine.text:
                raise SystemExit(f"not measured: with and without Redis different text: {answer.text} | {mine.text}")


async def at_rates(
    of: dict[str, Contender], model: BenchModel, plan: Plan, found: Found, say: Callable[[str], None], repetition: int
) -> dict[str, list[Found]]:
    """Turns of an open loop of each contender, at one rate after the other; the contenders take turns at each."""
    tried: dict[str, list[Found]] = {one: [] for one in NAMES[:: -1 if repetition % 2 else 1]}
    is_going_on = True
    while is_going_on:
        is_going_on = False
        for place, (one, turns) in enumerate(tried.items()):
            share = next_share(plan.rates[model.name], turns)
            if share is None:
                continue
            is_going_on = True
            rate, seed = share * rate_of_all(found, one, plan.max_tokens[model.name]), 1_000_000 * (repetition + 1)
            seed += 1000 * place + len(turns)
            asked = bodies(model, max(8, round(rate * plan.rate_s)), plan.max_tokens[model.name], seed=seed)
            turn = await open_loop(of[one], asked, rate, seed)
            turns.append({"share": share, "rate": rate, "refused": turn.num_refused, **figures(turn)})
            say(f"{one}, {rate:.1f} requests/s: first step after {turn.first_ms(99):.0f} ms (p99)")
    return tried


def next_share(rates: Sequence[float], turns: Sequence[Found]) -> float | None:
    """Upwards from the first until one is too much; downwards until one is not, if the first is. None: it is known."""
    if not turns:
        return FIRST_RATE
    place, was_held = rates.index(turns[-1]["share"]), is_held(turns[-1])
    if was_held != is_held(turns[0]):
        return None
    place += 1 if was_held else -1
    return rates[place] if 0 <= place < len(rates) else None


def is_held(turn: Found) -> bool:
    return turn["first_p99_ms"] <= SLOW_MS and not turn["refused"]


def rate_of_all(found: Found, name: str, max_tokens: int) -> float:
    """Requests a second that a contender answered with many at once."""
    turns = found["closed"][name][f"{RATE_CONCURRENCY}"]
    return sorted(turn["tokens_a_second"] for turn in turns)[len(turns) // 2] / max_tokens
