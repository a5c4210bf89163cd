"""Blocks under rules and settings of which no recording exists: against the plain engine, and by their form."""

import asyncio
from dataclasses import replace

from model_runner.engine.transformers_engine import TransformersEngine
from model_runner.settings import RunnerSettings
from tests.parity.traces import END_ID, PAD_ID, START_ID, K, answer, read_traces, request_of


async def test_fixed_blocks_are_those_of_the_plain_engine(start_vllm, checkpoint_of):
    """Two blocks in a row among them; every block has K pads, and no pad or END stands outside one."""
    checkpoint, defaults = checkpoint_of("c", "fixed")
    plain = TransformersEngine.start(RunnerSettings(model=checkpoint.folder), checkpoint, defaults)
    requests = [request_of(trace, defaults, f"fixed-{trace.index}") for trace in read_traces("c")]
    expected = [(await answer(plain, request))[0] for request in requests]
    async with start_vllm("c", latent_exit="fixed") as engine:
        answers = await asyncio.gather(*(answer(engine, request) for request in requests))
    assert [ids for ids, _ in answers] == expected
    assert any(START_ID in ids for ids in expected)
    for ids in expected:
        assert block_sizes(ids, ends_early=False)[:-1].count(K) == len(block_sizes(ids, ends_early=False)[:-1])


async def test_sampled_blocks_are_well_formed_and_a_seed_repeats(start_vllm, checkpoint_of):
    _, defaults = checkpoint_of("c")
    trace = read_traces("c")[3]
    base = request_of(trace, defaults, "sampled")

    def seeded(seed, tag):
        sampling = replace(base.sampling, temperature=1.3, top_p=0.98, top_k=60, seed=seed)
        return replace(base, request_id=f"{tag}-{seed}", sampling=sampling)

    async with start_vllm("c") as engine:
        first = await asyncio.gather(*(answer(engine, seeded(seed, "a")) for seed in range(8)))
        again = await asyncio.gather(*(answer(engine, seeded(seed, "b")) for seed in range(8)))
    assert [ids for ids, _ in first] == [ids for ids, _ in again]
    assert len({ids for ids, _ in first}) > 1
    sizes = [size for ids, _ in first for size in block_sizes(ids, ends_early=True)]
    assert len(sizes) > 0
    assert max(sizes) <= K


def block_sizes(ids, *, ends_early):
    """Pads of each block, after a check of the rule token by token. The last block may be cut."""
    sizes = []
    is_inside = False
    for token in ids:
        if token == START_ID:
            assert ends_early or not is_inside
            sizes.append(0)
            is_inside = True
        elif is_inside:
            assert token in (PAD_ID, END_ID)
            if token == PAD_ID:
                sizes[-1] += 1
                assert sizes[-1] <= K
            else:
                assert ends_early or sizes[-1] == K
                is_inside = False
        else:
            assert ends_early or token not in (PAD_ID, END_ID)
    return sizes
