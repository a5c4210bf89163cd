"""Exact where the engine is short of room: prompts in small chunks, requests preempted and recomputed."""

import asyncio

import pytest

from tests.parity.traces import NAMES, answer, read_traces, request_of


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


@pytest.mark.parametrize("name", NAMES)
async def test_preempted_requests(name, start_vllm, checkpoint_of):
    """15 blocks of 32 tokens for requests that grow to 5 to 7 blocks each."""
    _, defaults = checkpoint_of(name)
    traces = read_traces(name)
    async with start_vllm(name, num_kv_blocks=16, max_model_len=256, prefix_caching=False) as engine:
        answers = await all_at_once(engine, traces, defaults)
        stats = await engine.stats()
    assert [ids for ids, _ in answers] == [trace.output_ids for trace in traces]
    assert stats.num_preemptions > 0
    assert stats.model["replays"] > 0
    assert stats.model["replayed_pads"] >= 8
