"""Exact where the engine is short of room: prompts in small chunks, requests preempted and recomputed."""

import asyncio

import pytest

from tests.parity.traces import NAMES, PAD_ID, answer, read_traces, request_of


async def all_at_once(engine, traces, defaults):
    requests = [request_of(trace, defaults, f"{trace.index}") for trace in traces]
    return await asyncio.gather(*(answer(engine, request) for request in requests))


@pytest.mark.parametrize("name", NAMES)
async def test_prefill_in_chunks_of_64_tokens(name, start_vllm, checkpoint_of):
    _, defaults = checkpoint_of(name)
    traces = read_traces(name)
    async with start_vllm(name, max_num_batched_tokens=64, prefix_caching=False) as engine:
        answers = await all_at_once(engine, traces, defaults)
    assert [ids for ids, _ in answers] == [trace.output_ids for trace in traces]


@pytest.mark.parametrize("max_replayed_pads", [0, 1000])
@pytest.mark.parametrize("name", NAMES)
async def test_preempted_requests(name, max_replayed_pads, start_vllm, checkpoint_of):
    """15 blocks of 32 tokens for requests that grow to 5 to 7 blocks each; pads replayed, or a step each."""
    _, defaults = checkpoint_of(name)
    traces = read_traces(name)
    tight = {"num_kv_blocks": 16, "max_model_len": 256, "prefix_caching": False}
    async with start_vllm(name, max_replayed_pads=max_replayed_pads, **tight) as engine:
        answers = await all_at_once(engine, traces, defaults)
        stats = await engine.stats()
    assert [ids for ids, _ in answers] == [trace.output_ids for trace in traces]
    assert stats.num_preemptions > 0
    if max_replayed_pads:
        assert stats.model["replayed_pads"] >= 8
        assert stats.model["replayed_tokens"] > stats.model["replay_passes"] >= stats.model["replays"] > 0
    else:
        assert stats.model["replays"] == stats.model["replay_passes"] == stats.model["replayed_tokens"] == 0


async def test_a_newcomer_whose_block_is_filled_in_the_same_step_one_token_each(start_vllm, checkpoint_of):
    """The trap of same-step sharing in a step that looks like plain decoding.

    The first request has 64 tokens and computes 63 of them, then one, which fills its second block; the other has one
    token more, shares both blocks, and its one token needs the hidden state that the first is just computing.
    """
    _, defaults = checkpoint_of("b")
    trace = read_traces("b")[0]
    history = 64 - len(trace.expanded_ids)
    assert trace.output_ids[history - 1] == trace.output_ids[history] == PAD_ID
    requests = [request_of(trace, defaults, f"{n}", history=n, max_tokens=40) for n in (history, history + 1)]
    async with start_vllm("b", max_num_batched_tokens=63, block_size=32, max_replayed_pads=1000) as engine:
        (first, _), (second, shared) = await asyncio.gather(*(answer(engine, request) for request in requests))
    assert shared.num_cached_tokens == 64
    assert first == trace.output_ids[history : history + 40]
    assert second == trace.output_ids[history + 1 : history + 41]
