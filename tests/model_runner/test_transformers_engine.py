"""The plain engine around its loop: turns, cancels, choices. That the loop is exact: ``tests/parity/test_plain.py``."""

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import PromptTooLong
from contracts.manifest import BlockRule
from model_runner.ablation.donors import Row
from model_runner.checkpoint import Checkpoint
from model_runner.engine.base import EngineRequest, PromptInfo, SamplingSettings, TokenDelta
from model_runner.engine.transformers_engine import TransformersEngine, _choose, _logits_processors, in_block
from tests.model_runner.simulator import TOKENS, Block, make_spec

PROMPT = PromptInfo(num_tokens=1, num_image_tokens=0, num_cached_tokens=0, queue_ms=0.0)


@given(
    chosen=st.lists(st.sampled_from(TOKENS), max_size=20),
    size=st.integers(1, 4),
    rule=st.sampled_from(["learned", "fixed"]),
)
def test_blocks_as_the_simulator(chosen: list[int], size: int, rule: BlockRule) -> None:
    block, spec = Block(size), make_spec(size, rule)
    for choice in chosen:
        token = in_block(choice, block.phase, spec)
        assert token == block.decide(choice, rule)
        block.read(token)


class TestChoice:
    def test_greedy_takes_the_best_after_the_penalty(self) -> None:
        """1.2 of token 1 becomes 1.0 by the penalty of 1.2, for it was seen; token 2 has 1.1."""
        settings = SamplingSettings(max_tokens=1, repetition_penalty=1.2)
        scores = _logits_processors(settings)(torch.tensor([[1]]), torch.tensor([[0.0, 1.2, 1.1]]))
        assert _choose(scores, settings, None) == 2

    def test_top_k_of_1_is_the_best_at_any_temperature(self) -> None:
        settings = SamplingSettings(max_tokens=1, temperature=5.0, top_k=1)
        scores = _logits_processors(settings)(torch.tensor([[0]]), torch.tensor([[0.0, 0.2, 0.1]]))
        assert {_choose(scores, settings, torch.Generator().manual_seed(seed)) for seed in range(20)} == {1}

    def test_a_seed_gives_the_same_choices(self) -> None:
        settings = SamplingSettings(max_tokens=1, temperature=1.0, seed=7)
        scores = torch.zeros(1, 1000)
        first, second = (
            [_choose(scores, settings, generator) for _ in range(5)]
            for generator in (torch.Generator().manual_seed(7), torch.Generator().manual_seed(7))
        )
        assert first == second
        assert len(set(first)) > 1


class SlowLoop(TransformersEngine):
    """Without a model: a token takes 50 ms, and it is counted how many are computed at once."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(None, checkpoint, (376,), max_history_latents=3)
        self.is_computing = threading.Event()
        self.num_at_once = self.most_at_once = 0

    def _deltas(self, request: EngineRequest, queue_ms: float, row: Row) -> Iterator[TokenDelta]:
        for count in range(1, 4):
            self.num_at_once += 1
            self.most_at_once = max(self.most_at_once, self.num_at_once)
            self.is_computing.set()
            time.sleep(0.05)
            self.num_at_once -= 1
            yield TokenDelta(
                ids=(count,), prompt=PROMPT if count == 1 else None, stop_reason="length" if count == 3 else None
            )


def request(name: str, *prompt_ids: int) -> EngineRequest:
    return EngineRequest(request_id=name, prompt_ids=prompt_ids, sampling=SamplingSettings(max_tokens=3))


async def answer(engine: TransformersEngine, name: str) -> list[int]:
    return [token_id async for delta in engine.generate(request(name, 1)) for token_id in delta.ids]


@pytest.fixture
def engine(maze_checkpoint: Checkpoint) -> SlowLoop:
    return SlowLoop(maze_checkpoint)


async def test_requests_wait_for_each_other(engine: SlowLoop) -> None:
    assert await asyncio.gather(answer(engine, "a"), answer(engine, "b")) == [[1, 2, 3], [1, 2, 3]]
    assert engine.most_at_once == 1


async def test_a_cancelled_request_keeps_its_turn_until_its_thread_is_done(engine: SlowLoop) -> None:
    """The model holds state of its own while it reads a prompt (``rope_deltas``): two at once would mix it up."""
    first = asyncio.create_task(answer(engine, "a"))
    await asyncio.to_thread(engine.is_computing.wait)
    first.cancel()
    assert await answer(engine, "b") == [1, 2, 3]
    assert engine.most_at_once == 1


async def test_too_long_a_latent_history_is_refused(engine: SlowLoop) -> None:
    pad_id = 381
    assert [delta.ids async for delta in engine.generate(request("a", *[pad_id] * 3))] == [(1,), (2,), (3,)]
    with pytest.raises(PromptTooLong, match="3 latents"):
        await anext(engine.generate(request("b", *[pad_id] * 4)))
