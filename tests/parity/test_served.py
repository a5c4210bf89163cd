"""The served engine is the published loop: whatever else is in the batch, and whatever is cached."""

import asyncio
import os
from contextlib import aclosing
from dataclasses import replace

import numpy as np
import pytest
import pytest_asyncio

from contracts.errors import PromptTooLong
from model_runner.cores import ALL_CORES
from tests.parity.traces import GOLDEN, IMAGE_ID, NAMES, PAD_ID, START_ID, answer, read_traces, request_of, text_request

pytestmark = pytest.mark.asyncio(loop_scope="module")
BLOCK_SIZE = 32


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=NAMES)
async def served(request, start_vllm, checkpoint_of):
    """(name, engine, generation defaults); block size 32, 8 requests at once, prefix caching on."""
    _, defaults = checkpoint_of(request.param)
    async with start_vllm(request.param, block_size=BLOCK_SIZE, max_num_seqs=8) as engine:
        yield request.param, engine, defaults


async def all_at_once(engine, traces, defaults, tag):
    requests = [request_of(trace, defaults, f"{tag}-{trace.index}") for trace in traces]
    return await asyncio.gather(*(answer(engine, request) for request in requests))


async def test_this_process_leaves_cores_to_the_engine(served):
    num_threads = int(os.environ["OMP_NUM_THREADS"])
    assert os.sched_getaffinity(0) == set(sorted(ALL_CORES)[num_threads:] or ALL_CORES)


async def test_one_by_one(served):
    name, engine, defaults = served
    for trace in read_traces(name):
        assert await engine.reset_prefix_cache()
        ids, info = await answer(engine, request_of(trace, defaults, f"solo-{trace.index}"))
        assert ids == trace.output_ids
        assert info.num_cached_tokens == 0
        assert info.num_image_tokens == trace.expanded_ids.count(IMAGE_ID)


async def test_all_at_once(served):
    name, engine, defaults = served
    assert await engine.reset_prefix_cache()
    traces = read_traces(name)
    for trace, (ids, _) in zip(traces, await all_at_once(engine, traces, defaults, "batch"), strict=True):
        assert ids == trace.output_ids


async def test_twice_with_cached_prefixes(served):
    """The second time nothing is encoded, and every prompt longer than a block is found."""
    name, engine, defaults = served
    assert await engine.reset_prefix_cache()
    traces = read_traces(name)
    await all_at_once(engine, traces, defaults, "cold")
    encoded = (await engine.stats()).model["images_encoded"]
    for trace, (ids, info) in zip(traces, await all_at_once(engine, traces, defaults, "warm"), strict=True):
        assert ids == trace.output_ids
        assert (info.num_cached_tokens > 0) == (len(trace.expanded_ids) > BLOCK_SIZE)
    assert (await engine.stats()).model["images_encoded"] == encoded


async def test_with_text_only_neighbours(served):
    name, engine, defaults = served
    assert await engine.reset_prefix_cache()
    traces = read_traces(name)
    text_ids = tuple(token for token in traces[0].prompt_ids if token != IMAGE_ID)
    alone, _ = await answer(engine, text_request(text_ids, "text-alone", max_tokens=80))
    neighbours = [answer(engine, text_request(text_ids, f"text-{n}", max_tokens=80)) for n in range(3)]
    with_images = all_at_once(engine, traces, defaults, "mixed")
    (*texts, images) = await asyncio.gather(*neighbours, with_images)
    assert [ids for ids, _ in texts] == [alone] * 3
    assert [ids for ids, _ in images] == [trace.output_ids for trace in traces]


@pytest.mark.parametrize("end", ["inside a KV block", "one past a KV block"])
async def test_a_history_inside_a_latent_block_three_times_at_once(served, end):
    """On a cold cache the three share blocks that one of them is still filling, in the same step."""
    name, engine, defaults = served
    tried = 0
    for trace in read_traces(name):
        history = _history_inside_a_block(trace, aligned=end == "one past a KV block")
        if history is None:
            continue
        assert await engine.reset_prefix_cache()
        requests = [
            request_of(trace, defaults, f"{end}-{trace.index}-{n}", history=history, max_tokens=40) for n in range(3)
        ]
        answers = await asyncio.gather(*(answer(engine, request) for request in requests))
        assert [ids for ids, _ in answers] == [trace.output_ids[history : history + 40]] * 3
        assert max(info.num_cached_tokens for _, info in answers) > 0
        tried += 1
    assert tried > 0


def _history_inside_a_block(trace, *, aligned):
    """Number of output tokens after which the sequence ends inside a latent block, at least a pad in. With
    ``aligned`` one token past a KV block, so that sharers have one token left to compute, like a decode step."""
    for at, token in enumerate(trace.output_ids):
        if token != START_ID:
            continue
        for pads in range(2, 8):
            length = len(trace.expanded_ids) + at + 1 + pads
            is_inside = len(trace.output_ids) > at + pads + 41 and set(trace.output_ids[at + 1 : at + 1 + pads]) == {
                PAD_ID
            }
            if is_inside and length > BLOCK_SIZE + 1 and (not aligned or length % BLOCK_SIZE == 1):
                return at + 1 + pads
    return None


async def test_too_long_a_latent_history_is_refused(served):
    """As many as the server takes are answered, one more is not, and that says what to do."""
    _, engine, _ = served
    most = engine._max_history_latents
    full = text_request((1000, START_ID, *[PAD_ID] * most), "full", max_tokens=2)
    ids, _ = await answer(engine, full)
    assert len(ids) == 2
    with pytest.raises(PromptTooLong, match=f"holds {most + 1} latents; .* {most} \\(--max-history-latents\\)"):
        await answer(engine, text_request((*full.prompt_ids, PAD_ID), "more", max_tokens=2))
    assert await engine.reset_prefix_cache()


async def test_one_image_asked_about_three_times_is_encoded_once(served):
    name, engine, _ = served
    assert await engine.reset_prefix_cache()
    trace = read_traces(name)[1]
    before = (await engine.stats()).model
    at = trace.prompt_ids.index(IMAGE_ID)
    for n, last in enumerate((271, 198, 624)):  # three different texts after the image
        prompt_ids = (*trace.prompt_ids[: at + 2], last, *trace.prompt_ids[at + 2 :])
        request = text_request(prompt_ids, f"once-{n}", max_tokens=4)
        await answer(engine, replace(request, images=trace.images))
    after = (await engine.stats()).model
    assert after["images_encoded"] == before["images_encoded"] + 1
    assert after["encoder_cache_hits"] == before["encoder_cache_hits"] + 2


async def test_latent_vectors_are_the_recorded_ones(served):
    """Whole vectors of one prompt, and the first components of every latent step of all."""
    name, engine, defaults = served
    whole = np.load(GOLDEN / f"generate-{name}-latents.npz")
    for trace in read_traces(name):
        assert await engine.reset_prefix_cache()
        await engine.worker_call("trace_latents", True)
        await answer(engine, request_of(trace, defaults, f"vectors-{trace.index}"))
        positions, vectors = await engine.worker_call("take_latent_trace")
        await engine.worker_call("trace_latents", False)
        fed = [step for step in trace.steps if step["feed"] == "embeds"]
        assert positions == [len(trace.expanded_ids) + step["fed_at_output_index"] for step in fed]
        first = np.array([step["fed"]["first8"] for step in fed])
        np.testing.assert_allclose(np.array(vectors)[:, :8], first, atol=1e-3)
        if f"p{trace.index}_latents" in whole:
            np.testing.assert_allclose(np.array(vectors), whole[f"p{trace.index}_latents"], atol=1e-3)
    assert any(key.endswith("_latents") for key in whole)


async def test_latent_mode_off_never_starts_a_block(served):
    name, engine, defaults = served
    for trace in read_traces(name)[:2]:
        request = request_of(trace, defaults, f"off-{trace.index}")
        on, off = await asyncio.gather(
            answer(engine, request),
            answer(engine, replace(request, latent_mode="off", request_id=f"no-latents-{trace.index}")),
        )
        assert on[0] == trace.output_ids
        assert START_ID in on[0]
        assert START_ID not in off[0]


async def test_cancelled_inside_a_latent_block_200_times(served):
    """Nothing is left behind: all KV blocks are free, nothing runs or waits, and what comes next is exact."""
    name, engine, defaults = served
    traces = read_traces(name)
    trace = next(trace for trace in traces if _first_pads(trace.output_ids) <= 40)

    async def cancel(n):
        ids = []
        async with aclosing(engine.generate(request_of(trace, defaults, f"cancel-{n}"))) as deltas:
            async for delta in deltas:
                ids += delta.ids
                if START_ID in ids and ids[-1] == PAD_ID:
                    return
        raise AssertionError("it ended before it was inside a block")

    for begin in range(0, 200, 8):
        await asyncio.gather(*(cancel(n) for n in range(begin, begin + 8)))
    assert await engine.reset_prefix_cache()  # False while a KV block is in use
    ids, _ = await answer(engine, request_of(traces[0], defaults, "after", max_tokens=3))
    assert ids == traces[0].output_ids[:3]
    stats = await engine.stats()
    assert (stats.num_running, stats.num_waiting) == (0, 0)
    assert await engine.worker_call("num_known_requests") <= 1  # the last one goes with the next step
    for trace, (ids, _) in zip(traces, await all_at_once(engine, traces, defaults, "after"), strict=True):
        assert ids == trace.output_ids
    assert await engine.reset_prefix_cache()


def _first_pads(ids):
    return ids.index(START_ID) if START_ID in ids else len(ids)
