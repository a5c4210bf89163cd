"""(d) A latent block against the helper image that it replaces."""

import random
import statistics
import time

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
multiplications for a visual token. KV cache: of the block's 8 pads, START and END, and of the visual tokens and \
their two marks. Making the helper image, which the pixel way would also have to do, is not in it. \
(The paper is said to claim inference 8 to 18 times as fast, of whole answers; against which baseline is not known.)"""


async def measure(plan: Plan) -> PartReport:
    name = RANDOM if RANDOM in plan.models else plan.models[0]
    model = load(name)
    set_threads(plan.threads[name])
    sizes = [px for px in plan.image_px if (px // 28) ** 2 < 1500]
    found: dict[str, list[float]] = {"block": [], "two tokens": [], **{f"{px}": [] for px in sizes}}
    async with served(model, CLOCKED) as engine:
        rng = random.Random(0)
        for repetition in range(-1, plan.repetitions):
            times = {"block": await block_s(engine, model, repetition)}
            times["two tokens"] = await first_s(engine, model, None, repetition)
            for px in sizes:
                image = image_of(random_picture(px, rng))
                times[f"{px}"] = await first_s(engine, model, image, repetition) - times["two tokens"]
            if repetition >= 0:
                for key, seconds in times.items():
                    found[key].append(seconds)
                plan.say("(d) " + ", ".join(f"{key}: {seconds:.3f} s" for key, seconds in times.items()))
    size = model.checkpoint.spec.size
    rows = [[f"latent block of {size}", spread(found["block"], 3), "1", f"{size + 2}", kv_mib(model, size + 2), "1"]]
    for px in sizes:
        tokens = model.tokens_of_image((px, px)) + 2
        over = spread(ratios(found[f"{px}"], found["block"]), 1)
        row = [f"image of {px} px", spread(found[f"{px}"], 3), over, f"{tokens}", kv_mib(model, tokens)]
        rows.append([*row, f"{tokens / (size + 2):.1f}"])
    header = [f"{name} model", "seconds", "times the block", "tokens of KV cache", "MiB of it", "times the block"]
    title = "(d) A latent block against a helper image"
    return PartReport(key="d", title=title, text=TEXT, header=header, rows=rows, raw=found)


def kv_mib(model: BenchModel, num_tokens: int) -> str:
    return f"{num_tokens * model.kv_bytes_of_token / MIB:.2f}"


async def block_s(engine: VllmEngine, model: BenchModel, seed: int) -> float:
    """Of as many latent steps as a block has; the prompt ends with START, which is step 0."""
    size = model.checkpoint.spec.size
    await forget(engine)
    await engine.worker_call("take_steps")
    prompt_ids = (*model.text_ids(PREFIX_TOKENS - 1, seed + 100), model.checkpoint.spec.start_id)
    answers = await ask(engine, [_request(prompt_ids, None, max_tokens=size + 3)], 1)
    assert answers.ids[0][:size] == (model.checkpoint.spec.pad_id,) * size
    steps = await engine.worker_call("take_steps")
    return size * statistics.median(decode_intervals(steps, 1)[:size])


async def first_s(engine: VllmEngine, model: BenchModel, image: EngineImage | None, seed: int) -> float:
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
    return answers.first_s[0]


def _request(prompt_ids: tuple[int, ...], image: EngineImage | None, *, max_tokens: int) -> EngineRequest:
    return EngineRequest(
        request_id=f"{time.monotonic_ns()}",
        prompt_ids=prompt_ids,
        images=() if image is None else (image,),
        sampling=SamplingSettings(max_tokens=max_tokens),
    )
