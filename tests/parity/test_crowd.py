"""64 clients at once, short of room: requests come when they like and go when they like, and each answer is its own.

The first of each client come together.

Requests are recorded traces, from their begin or from any token of their answer, with any number of tokens, and text
alone, whose answers are those that the engine gave when nothing else ran.
"""

import asyncio
import os
import random
import time
from contextlib import aclosing, suppress
from dataclasses import replace

import pytest

from tests.parity.traces import IMAGE_ID, NAMES, answer, read_traces, request_of, text_request

NUM_CLIENTS = 64
NUM_KV_BLOCKS = 97  # of 32 tokens: room for some 20 requests of 150
MEAN_PAUSE_S = 0.3
SHARE_CANCELLED = 0.25
SHARE_TEXT = 0.2
SHARE_LEFT = 0.1  # before or after the first token
SEED = "ILVR_TEST_SEED"  # environment variable: repeats what is random here, though not the times


class Crowd:
    """The clients, and what became of their requests."""

    def __init__(self, engine, traces, defaults, seed):
        self.engine = engine
        self.traces = traces
        self.defaults = defaults
        self.seed = seed
        self.texts = []  # (request, answer)
        self.num_finished = 0
        self.num_cancelled = 0
        self.num_open = self.most_open = 0

    async def ask_texts_alone(self):
        for n, trace in enumerate(self.traces):
            ids = tuple(token for token in trace.prompt_ids if token != IMAGE_ID)
            request = text_request(ids, f"text {n}", max_tokens=60)
            self.texts.append((request, (await answer(self.engine, request))[0]))

    async def client(self, number, until):
        rng = random.Random(f"{self.seed} {number}")
        count = 0
        while True:
            if count > 0:  # the first ones all at once
                await asyncio.sleep(rng.expovariate(1 / MEAN_PAUSE_S))
            if time.monotonic() > until:
                return
            request, expected = self.draw(rng, f"{number}.{count}")
            self.num_open += 1
            self.most_open = max(self.most_open, self.num_open)
            if rng.random() < SHARE_LEFT:
                await self.leave(request, rng.random() * MEAN_PAUSE_S)
            else:
                num_read = rng.randrange(len(expected)) if rng.random() < SHARE_CANCELLED else None
                await self.ask(request, expected, num_read)
            self.num_open -= 1
            count += 1

    async def leave(self, request, after_s):
        """Whatever the request is doing then: it may be waiting, or its prompt being computed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(after_s), aclosing(self.engine.generate(request)) as deltas:
                async for _ in deltas:
                    pass
        self.num_cancelled += 1

    def draw(self, rng, name):
        if rng.random() < SHARE_TEXT:
            request, expected = rng.choice(self.texts)
            return replace(request, request_id=name), expected
        trace = rng.choice(self.traces)
        history = rng.choice([0, rng.randrange(len(trace.output_ids))])
        expected = trace.output_ids[history : history + rng.randint(1, 120)]
        request = request_of(trace, self.defaults, name, history=history, max_tokens=len(expected))
        return request, expected

    async def ask(self, request, expected, num_read):
        """Read all, or cancel after ``num_read`` tokens."""
        ids = ()
        async with aclosing(self.engine.generate(request)) as deltas:
            async for delta in deltas:
                ids += delta.ids
                if num_read is not None and len(ids) > num_read:
                    break
        assert ids == expected[: len(ids)], f"{request.request_id} of seed {self.seed}"
        assert num_read is not None or len(ids) == len(expected), f"{request.request_id} of seed {self.seed}"
        self.num_cancelled += num_read is not None
        self.num_finished += num_read is None


async def crowded(start_vllm, checkpoint_of, name, *, seconds, **settings):
    seed = os.environ.get(SEED) or str(random.randrange(2**32))
    print(f"\n{SEED}={seed}")
    _, defaults = checkpoint_of(name)
    tight = {"num_kv_blocks": NUM_KV_BLOCKS, "max_model_len": 256, "block_size": 32}
    async with start_vllm(name, max_num_seqs=NUM_CLIENTS, **tight, **settings) as engine:
        crowd = Crowd(engine, read_traces(name), defaults, seed)
        await crowd.ask_texts_alone()
        until = time.monotonic() + seconds
        async with asyncio.TaskGroup() as clients:
            for number in range(NUM_CLIENTS):
                clients.create_task(crowd.client(number, until))
        stats = await engine.stats()
        print(crowd.most_open, "at once,", crowd.num_finished, "finished,", crowd.num_cancelled, "cancelled;", stats)
        assert crowd.num_finished > NUM_CLIENTS / 2
        assert crowd.num_cancelled > 0
        assert crowd.most_open == NUM_CLIENTS
        assert stats.num_preemptions > 0
        assert await engine.reset_prefix_cache()  # False while a KV block is in use
        await crowd.ask_texts_alone()
        assert crowd.texts[: len(crowd.traces)] == crowd.texts[len(crowd.traces) :]
        stats = await engine.stats()
        assert (stats.num_running, stats.num_waiting) == (0, 0)
        assert await engine.worker_call("num_known_requests") <= 1  # the last one goes with the next step
    return stats


async def test_for_15_seconds(start_vllm, checkpoint_of):
    await crowded(start_vllm, checkpoint_of, "c", seconds=15)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("max_replayed_pads", [0, 64])
@pytest.mark.parametrize("name", NAMES)
async def test_for_5_minutes(start_vllm, checkpoint_of, name, max_replayed_pads):
    stats = await crowded(start_vllm, checkpoint_of, name, seconds=300, max_replayed_pads=max_replayed_pads)
    assert (stats.model["replayed_pads"] > 1000) == (max_replayed_pads > 0)
