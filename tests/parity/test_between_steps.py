"""Requests come, go, are preempted and computed in pieces, at random: each that ends is the recorded one."""

import random

import pytest

from tests.parity.stepper import ALL_PADS, BLOCK_SIZE
from tests.parity.traces import NAMES, read_traces, request_of

MAX_AT_ONCE = 8


def disturb(stepper, name, seed, num_requests):
    rng = random.Random(seed)
    traces = read_traces(name)
    expected = {}
    aborted = set()
    num_preempted = 0
    while len(expected) < num_requests or stepper.llm.has_unfinished_requests():
        running = [key for key in expected if key not in stepper.reasons and key not in aborted]
        if len(expected) < num_requests and len(running) < MAX_AT_ONCE and rng.random() < 0.3:
            trace = rng.choice(traces)
            history, max_tokens = rng.randrange(len(trace.output_ids)), rng.randint(1, 40)
            key = f"{len(expected)}: {trace.index} from {history}"
            expected[key] = trace.output_ids[history : history + max_tokens]
            max_tokens = len(expected[key])  # a trace may end before
            stepper.add(request_of(trace, stepper.defaults, key, history=history, max_tokens=max_tokens))
            running.append(key)
        if running and rng.random() < 0.03:
            aborted.add(rng.choice(running))
            stepper.abort(next(key for key in running if key in aborted))
        if stepper.scheduler.running and rng.random() < 0.15:
            one = rng.choice(stepper.scheduler.running).request_id
            stepper.preempt(next(key for key, inner in stepper._inner.items() if inner == one))
            num_preempted += 1
        if rng.random() < 0.02:
            stepper.forget()
        if rng.random() < 0.1:
            stepper.scheduler._max_replayed_pads = rng.choice([0, 1, 3, ALL_PADS])
        stepper.step(rng.randint(1, 60) if rng.random() < 0.4 else None)
    for key, ids in expected.items():
        assert (tuple(stepper.ids[key]) == ids) or key in aborted, f"{key} with seed {seed}"
        assert tuple(stepper.ids[key]) == ids[: len(stepper.ids[key])]
    assert stepper.is_empty()
    return num_preempted, len(aborted)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", NAMES)
def test_disturbed(stepper_of, name, seed):
    num_preempted, num_aborted = disturb(stepper_of(name, block_size=BLOCK_SIZE), name, seed, num_requests=24)
    assert num_preempted > 10
    assert num_aborted > 0


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("block_size", [32, 128])
@pytest.mark.parametrize("name", NAMES)
def test_disturbed_for_long(stepper_of, name, block_size):
    stepper = stepper_of(name, block_size=block_size)
    for seed in range(100, 110):
        stepper.start_over()
        disturb(stepper, name, seed, num_requests=50)
