"""What must hold on every runner, on every device and in every graph mode: the recorded tokens, and nothing else.

The same functions are run on a CPU (``test_scenarios.py`` here, ``tests/v2``) and on a GPU (``test_graphs.py``), so
that on a GPU only the device is new.
"""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from contracts.manifest import BlockRule
from model_runner.engine.base import EngineRequest, PromptInfo
from model_runner.engine.transformers_engine import TransformersEngine
from model_runner.engine.vllm_engine import VllmEngine
from model_runner.generation import GenerationDefaults
from model_runner.settings import LatentAblation, RunnerSettings
from tests.gpu.engines import read
from tests.parity.traces import (
    END_ID,
    IMAGE_ID,
    PAD_ID,
    START_ID,
    K,
    answer,
    read_traces,
    request_of,
    text_request,
)

LENGTHS = (120, 37, 90, 64, 23, 111, 50, 78)  # tokens asked for: requests end, and others join, at different steps
PATIENCE = 50  # tenths of a second
ATOL = 1e-3  # of recorded vectors, as in tests/parity
# The same in bfloat16. Numbers that come from a norm are about 1, and each is rounded some two dozen times on the way
# through two layers, by at most 2**-9 of it; a wrong vector differs by far more.
ROUGHLY = 0.1
CLOSED = re.compile(rf"s(?=p{{0,{K}}}(?:s|e|$))")  # a START, at most K pads, and END, another START or the end


@dataclass(frozen=True)
class Case:
    """A request and all ids of its answer."""

    request: EngineRequest
    ids: tuple[int, ...]


def recorded(name: str, defaults: GenerationDefaults, size: int, tag: str, *, longest: int = 120) -> list[Case]:
    """As many requests as asked for, from the recorded traces in turn."""
    traces = read_traces(name)
    cases = []
    for n in range(size):
        trace, length = traces[n % len(traces)], min(LENGTHS[n % len(LENGTHS)], longest)
        request = request_of(trace, defaults, f"{tag}-{n}", max_tokens=length)
        cases.append(Case(request, trace.output_ids[:length]))
    return cases


async def answered(engine: VllmEngine, cases: Sequence[Case]) -> list[PromptInfo]:
    """Asks all at once; fails with the first place where an answer is not the expected one."""
    answers = await asyncio.gather(*(answer(engine, case.request) for case in cases))
    wrong = []
    for case, (ids, _) in zip(cases, answers, strict=True):
        if ids != case.ids:
            at = next((n for n, (a, b) in enumerate(zip(ids, case.ids, strict=False)) if a != b), len(ids))
            wrong.append((case.request.request_id, at, ids[at : at + 4], case.ids[at : at + 4]))
    assert wrong == [], f"{len(wrong)} of {len(cases)} differ: (request, first at, is, should be)"
    return [info for _, info in answers]


async def answered_plainly(
    folder: Path, asked: Sequence[EngineRequest], mode: LatentAblation = "none", rule: BlockRule | None = None
) -> list[Case]:
    """What the plain engine answers on a CPU, one request after the other, also with ablated latents."""
    checkpoint, defaults = read(folder, is_cpu=True, rule=rule)
    settings = RunnerSettings(model=folder, latent_ablation=mode)
    engine = TransformersEngine.start(settings, checkpoint, defaults)
    await engine.prepare()
    return [Case(one, (await answer(engine, one))[0]) for one in asked]


def renamed(cases: Sequence[Case], tag: str) -> list[Case]:
    return [Case(replace(case.request, request_id=f"{case.request.request_id}-{tag}"), case.ids) for case in cases]


def num_changed(cases: Sequence[Case], others: Sequence[Case]) -> int:
    return sum(case.ids != other.ids for case, other in zip(cases, others, strict=True))


async def forget(engine: VllmEngine) -> None:
    """Empties the prefix cache. A step that was scheduled ahead may hold KV blocks for a moment longer."""
    for _ in range(PATIENCE):
        if await engine.reset_prefix_cache():
            return
        await asyncio.sleep(0.1)
    raise AssertionError("KV blocks are in use although nothing runs")


async def a_batch(
    engine: VllmEngine, name: str, defaults: GenerationDefaults, size: int, *, longest: int = 120
) -> None:
    """Text and latent rows in one batch, from a cold cache; rows leave it at different steps."""
    await forget(engine)
    await answered(engine, recorded(name, defaults, size, f"batch-of-{size}", longest=longest))


async def whole_traces(engine: VllmEngine, name: str, defaults: GenerationDefaults) -> None:
    """Every recorded trace to its very end, all at once and from a cold cache."""
    await forget(engine)
    cases = [Case(request_of(trace, defaults, f"whole-{trace.index}"), trace.output_ids) for trace in read_traces(name)]
    await answered(engine, cases)


async def a_warm_cache(engine: VllmEngine, name: str, defaults: GenerationDefaults, *, longest: int = 60) -> None:
    """The second time prompts are found, and begin with a step that looks like decoding where one token is left."""
    await forget(engine)
    await answered(engine, recorded(name, defaults, 8, "cold", longest=longest))
    infos = await answered(engine, recorded(name, defaults, 8, "warm", longest=longest))
    assert max(info.num_cached_tokens for info in infos) > 0


def histories_in_a_block(
    name: str, defaults: GenerationDefaults, block_size: int, tag: str, *, aligned: bool, longest: int = 40
) -> list[list[Case]]:
    """Prompts that end inside a latent block, each three times. ``aligned``: one token past a KV block, so that those
    who share it have one token left to compute, like a decode step, and need what another is just computing."""
    found = []
    for trace in read_traces(name):
        for at, token in enumerate(trace.output_ids):
            length = len(trace.expanded_ids) + at + 1
            is_inside = token == PAD_ID and START_ID in trace.output_ids[max(0, at - 7) : at]
            is_recorded = len(trace.output_ids) > at + longest
            if is_inside and is_recorded and length > block_size + 1 and (not aligned or length % block_size == 1):
                cases = []
                for n in range(3):
                    one = request_of(trace, defaults, f"{tag}-{trace.index}-{n}", history=at + 1, max_tokens=longest)
                    cases.append(Case(one, trace.output_ids[at + 1 : at + 1 + longest]))
                found.append(cases)
                break
    return found


async def shared_histories(
    engine: VllmEngine,
    name: str,
    defaults: GenerationDefaults,
    block_size: int,
    *,
    longest: int = 40,
    at_most: int = 99,
) -> None:
    for aligned in (False, True):
        groups = histories_in_a_block(
            name, defaults, block_size, f"history-{aligned}", aligned=aligned, longest=longest
        )
        assert groups
        for cases in groups[:at_most]:
            await forget(engine)
            infos = await answered(engine, cases)
            assert max(info.num_cached_tokens for info in infos) > 0


async def latents_off(engine: VllmEngine, name: str, defaults: GenerationDefaults, *, longest: int = 60) -> None:
    """Beside a request that may begin blocks one that may not; its neighbour is as recorded."""
    (case,) = recorded(name, defaults, 1, "on", longest=longest)
    off = replace(case.request, latent_mode="off", request_id="off")
    (on, _), (without, _) = await asyncio.gather(answer(engine, case.request), answer(engine, off))
    assert on == case.ids
    assert START_ID in on
    assert START_ID not in without


async def beside_text(engine: VllmEngine, name: str, defaults: GenerationDefaults, *, longest: int = 60) -> None:
    """Requests without pictures between the recorded ones answer as they do alone."""
    ids = tuple(token for token in read_traces(name)[0].prompt_ids if token != IMAGE_ID)
    alone, _ = await answer(engine, text_request(ids, "text-alone", max_tokens=longest))
    texts = [Case(text_request(ids, f"text-{n}", max_tokens=longest), alone) for n in range(3)]
    mixed = recorded(name, defaults, 5, "beside-text", longest=longest)
    await answered(engine, [texts[0], *mixed[:3], texts[1], *mixed[3:], texts[2]])


async def traced_vectors(engine: VllmEngine, name: str, defaults: GenerationDefaults, *, at_most: int = 3) -> None:
    """Every vector that is fed is a recorded one: also where graphs were captured, which a trace does without."""
    for trace in read_traces(name)[:at_most]:
        await forget(engine)
        await engine.worker_call("trace_latents", True)
        ids, _ = await answer(engine, request_of(trace, defaults, f"vectors-{trace.index}"))
        positions, vectors = await engine.worker_call("take_latent_trace")
        await engine.worker_call("trace_latents", False)
        assert ids == trace.output_ids
        fed = [step for step in trace.steps if step["feed"] == "embeds"]
        assert positions == [len(trace.expanded_ids) + step["fed_at_output_index"] for step in fed]
        first = np.array([step["fed"]["first8"] for step in fed])
        np.testing.assert_allclose(np.array(vectors)[:, :8], first, atol=ATOL)


def is_well_formed(ids: Sequence[int]) -> bool:
    """Whether an answer has blocks, and each is closed or cut by the end of the answer."""
    begun, closed = _num_blocks(ids)
    return begun == closed > 0


def _num_blocks(ids: Sequence[int]) -> tuple[int, int]:
    """How many were begun, and of how many nothing is wrong."""
    letters = "".join({START_ID: "s", PAD_ID: "p", END_ID: "e"}.get(token, "-") for token in ids)
    return letters.count("s"), len(CLOSED.findall(letters))


async def sampled(
    engine: VllmEngine, name: str, defaults: GenerationDefaults, *, longest: int = 60, cuts_tail: bool = True
) -> None:
    """Blocks are well-formed whatever is drawn, and a seed gives in a crowd what it gives alone.

    cuts_tail: with top-k and top-p.
    """
    base = request_of(read_traces(name)[3], defaults, "sampled", max_tokens=longest)

    async def drawn(seed: int, tag: str) -> tuple[int, ...]:
        tail = {"top_p": 0.98, "top_k": 60} if cuts_tail else {"top_p": 1.0, "top_k": 0}
        sampling = replace(base.sampling, temperature=1.3, seed=seed, **tail)
        return (await answer(engine, replace(base, request_id=f"{tag}-{seed}", sampling=sampling)))[0]

    crowd = await asyncio.gather(*(drawn(seed, "crowd") for seed in range(8)))
    assert [await drawn(seed, "alone") for seed in range(3)] == crowd[:3]
    assert len(set(crowd)) > 1
    begun, closed = zip(*map(_num_blocks, crowd), strict=True)
    assert begun == closed
    assert any(begun)


async def fixed_blocks(engine: VllmEngine, cases: Sequence[Case]) -> None:
    """K pads in each block, also where the head is not run for rows whose next token is known."""
    await forget(engine)
    await answered(engine, cases)
    assert sum(case.ids.count(PAD_ID) >= K for case in cases) > 1


async def fixed_cases(folder: Path, name: str, defaults: GenerationDefaults, *, longest: int = 60) -> list[Case]:
    asked = [request_of(trace, defaults, f"fixed-{trace.index}", max_tokens=longest) for trace in read_traces(name)]
    return await answered_plainly(folder, asked, rule="fixed")


async def roughly(engine: VllmEngine, name: str, defaults: GenerationDefaults) -> None:
    """In a type of 2 bytes, where a close choice can tip: all traces at once have well-formed blocks, and the first two
    latents after each recorded START are close to the recorded ones."""
    traces = read_traces(name)
    asked = [request_of(trace, defaults, f"roughly-{trace.index}") for trace in traces]
    answers = await asyncio.gather(*(answer(engine, one) for one in asked))
    assert all(is_well_formed(ids) for ids, _ in answers)
    for trace in traces:
        start = trace.output_ids.index(START_ID)
        await engine.worker_call("trace_latents", True)
        await answer(engine, request_of(trace, defaults, f"first-{trace.index}", history=start + 1, max_tokens=3))
        positions, vectors = await engine.worker_call("take_latent_trace")
        await engine.worker_call("trace_latents", False)
        recorded = list(trace.latents.items())[:2]
        assert positions == [at for at, _ in recorded]
        first, second = (np.array(latent["first8"]) for _, latent in recorded)
        np.testing.assert_allclose(np.array(vectors)[:, :8], [first, second], atol=ROUGHLY)
        assert abs(first - second).max() > 3 * ROUGHLY  # or it would not tell one vector from another


async def preempted(
    engine: VllmEngine, name: str, defaults: GenerationDefaults, *, size: int = 8, longest: int = 120
) -> None:
    """An engine with too few KV blocks: requests are stopped anywhere, also inside blocks, and computed again."""
    before = (await engine.stats()).num_preemptions
    await answered(engine, recorded(name, defaults, size, "tight", longest=longest))
    assert (await engine.stats()).num_preemptions > before
