"""(d) A latent block against the helper image that it replaces."""

import random
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from benchmarks.decode.engines import CLOCKED, ask, forget, served, set_threads
from benchmarks.decode.figures import PartReport, decode_intervals, ratios, spread
from benchmarks.decode.models import RANDOM, BenchModel, image_of, load, random_picture
from benchmarks.decode.plan import Plan
from model_runner.engine.base import EngineImage, EngineRequest, SamplingSettings
from model_runner.engine.vllm_engine import VllmEngine

PREFIX_TOKENS = 64  # two KV blocks, so that all of them are cached
MIB = 2**20

TEXT = """At batch 1, after a question whose KV cache is there: the steps of one latent block of 8, by the engine's \
clock, against an image of random pixels that is processed, encoded and prefilled, by the time to the first token, \
less that of two tokens of text in its place. The tower has Qwen2.5-VL-7B's proportion: 0.40 of the decoder's \
multiplications for a visual token. Memory is what a request holds. KV cache: of the block's 8 pads, START and END, \
and of the visual tokens and their two marks. Embeddings: what the engine's encoder cache holds after the image, and \
goes on holding where there is room. Making the helper image, which the pixel way would also have to do, is not in \
it. (The paper is said to claim inference 8 to 18 times as fast, of whole answers; against which baseline is not \
known.)"""

HEADER = ["seconds", "times the block", "tokens of KV cache", "MiB of it", "MiB of embeddings", "MiB, times the block"]
BLOCK = "block"


@dataclass(frozen=True, slots=True)
class Cost:
    """embeddings: bytes in the encoder cache."""

    seconds: float
    embeddings: int


async def measure(plan: Plan) -> PartReport:
    # The embedded model's image processor makes a large image small, so it is asked only where there is no other.
    model = load(RANDOM if RANDOM in plan.models else plan.models[0])
    found = await _costs(plan, model)
    raw = {what: [asdict(cost) for cost in costs] for what, costs in found.items()}
    title = "(d) A latent block against a helper image"
    header = [f"{model.name} model", *HEADER]
    return PartReport(key="d", title=title, text=TEXT, header=header, rows=rows_of(model, found), raw=raw)


async def _costs(plan: Plan, model: BenchModel) -> dict[str, list[Cost]]:
    """Of each repetition: of a block, and of an image by its side in pixels."""
    set_threads(plan.threads[model.name])
    found: dict[str, list[Cost]] = {what: [] for what in (BLOCK, *map(str, plan.image_px))}
    async with served(model, CLOCKED) as engine:
        rng = random.Random(0)
        for repetition in range(-1, plan.repetitions):
            costs = {BLOCK: await block_cost(engine, model, repetition)}
            two_tokens = await first_cost(engine, model, None, repetition)
            for px in plan.image_px:
                cost = await first_cost(engine, model, image_of(random_picture(px, rng)), repetition)
                costs[f"{px}"] = replace(cost, seconds=cost.seconds - two_tokens.seconds)
            if repetition >= 0:
                for what, cost in costs.items():
                    found[what].append(cost)
                plan.say("(d) " + ", ".join(f"{what}: {cost.seconds:.3f} s" for what, cost in costs.items()))
    return found


def rows_of(model: BenchModel, found: Mapping[str, Sequence[Cost]]) -> list[list[str]]:
    size = model.checkpoint.spec.size
    block_s = [cost.seconds for cost in found[BLOCK]]
    block_bytes = (size + 2) * model.kv_bytes_of_token
    rows = []
    for what, costs in found.items():
        is_block = what == BLOCK
        num_tokens = size + 2 if is_block else model.tokens_of_image((int(what), int(what))) + 2
        kv_bytes, embeddings = num_tokens * model.kv_bytes_of_token, costs[0].embeddings
        seconds = [cost.seconds for cost in costs]
        rows.append(
            [
                f"latent block of {size}" if is_block else f"image of {what} px",
                spread(seconds, 3),
                "1" if is_block else spread(ratios(seconds, block_s), 1),
                f"{num_tokens}",
                f"{kv_bytes / MIB:.2f}",
                f"{embeddings / MIB:.2f}",
                "1" if is_block else f"{(kv_bytes + embeddings) / block_bytes:.1f}",
            ]
        )
    return rows


async def block_cost(engine: VllmEngine, model: BenchModel, seed: int) -> Cost:
    """Of as many latent steps as a block has; the prompt ends with START, which is step 0."""
    size = model.checkpoint.spec.size
    await forget(engine)
    await engine.worker_call("take_steps")
    prompt_ids = (*model.text_ids(PREFIX_TOKENS - 1, seed + 100), model.checkpoint.spec.start_id)
    answers = await ask(engine, [_request(prompt_ids, None, max_tokens=size + 3)], 1)
    assert answers.ids[0][:size] == (model.checkpoint.spec.pad_id,) * size
    steps = await engine.worker_call("take_steps")
    return await _cost(engine, size * statistics.median(decode_intervals(steps, 1)[:size]))


async def first_cost(engine: VllmEngine, model: BenchModel, image: EngineImage | None, seed: int) -> Cost:
    """Time to the first token of a question that goes on with an image, or with two tokens of text."""
    await forget(engine)
    prefix = model.text_ids(PREFIX_TOKENS, seed + 200)
    await ask(engine, [_request((*prefix, *model.text_ids(2, seed)), None, max_tokens=1)], 1)
    config = model.checkpoint.config
    # In place of an image's two marks, tokens that are not those of the warm-up.
    added = model.text_ids(2, seed + 300)
    if image is not None:
        added = (config["vision_start_token_id"], config["image_token_id"], config["vision_end_token_id"])
    answers = await ask(engine, [_request((*prefix, *added), image, max_tokens=1)], 1)
    return await _cost(engine, answers.first_s[0])


async def _cost(engine: VllmEngine, seconds: float) -> Cost:
    return Cost(seconds, await engine.worker_call("encoder_cache_bytes"))


def _request(prompt_ids: tuple[int, ...], image: EngineImage | None, *, max_tokens: int) -> EngineRequest:
    return EngineRequest(
        request_id=f"{time.monotonic_ns()}",
        prompt_ids=prompt_ids,
        images=() if image is None else (image,),
        sampling=SamplingSettings(max_tokens=max_tokens),
    )
