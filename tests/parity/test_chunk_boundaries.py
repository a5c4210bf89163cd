"""A history with a latent block, computed in two chunks or three, goes on as it did, wherever the chunks end."""

import itertools

import pytest

from tests.parity.stepper import ALL_PADS, BLOCK_SIZE
from tests.parity.traces import NAMES, check_latents, read_traces, request_of

NUM_TEXT = 3  # tokens after END that the history holds too
NUM_ANSWERED = 6


def go_on(stepper, trace, block, boundaries, max_replayed_pads):
    """Send the answer up to some text after a block as history, and end a chunk after each of ``boundaries``."""
    stepper.start_over(max_replayed_pads=max_replayed_pads)
    history = min(block.stop + NUM_TEXT, len(trace.output_ids) - NUM_ANSWERED)
    request = request_of(trace, stepper.defaults, "one", history=history, max_tokens=NUM_ANSWERED)
    before = len(trace.expanded_ids)
    with stepper.counted() as counts, stepper.fed() as fed:
        stepper.add(request)
        stepper.step(before - 1)
        for boundary in boundaries:
            stepper.compute_until("one", before + boundary + 1)
        stepper.run()
    assert tuple(stepper.ids["one"]) == trace.output_ids[history : history + NUM_ANSWERED]
    check_latents(fed, trace, before + history + NUM_ANSWERED - 1)
    pads = [at - before for at in trace.latents if at < before + history]
    read = [at for at in pads if at - 1 in boundaries]  # first of their chunk
    if max_replayed_pads == ALL_PADS:
        assert counts["replayed_pads"] == len(pads) - len(read)
    else:
        assert (counts["replayed_pads"] > 0) == (max_replayed_pads > 0)


@pytest.mark.parametrize("max_replayed_pads", [0, ALL_PADS])
@pytest.mark.parametrize(("name", "at"), [("b", 0), ("c", 0), ("c", 1)], ids=["b", "c, an early end", "c"])
def test_after_every_token_of_a_block(stepper_of, name, at, max_replayed_pads):
    stepper = stepper_of(name, block_size=BLOCK_SIZE)
    trace = read_traces(name)[0]
    for boundary in trace.blocks[at]:
        go_on(stepper, trace, trace.blocks[at], [boundary], max_replayed_pads)


@pytest.mark.slow
@pytest.mark.parametrize("max_replayed_pads", [0, 3, ALL_PADS])
@pytest.mark.parametrize("name", NAMES)
def test_after_every_two_tokens_of_a_block(stepper_of, name, max_replayed_pads):
    stepper = stepper_of(name, block_size=BLOCK_SIZE)
    trace = read_traces(name)[0]
    for boundaries in itertools.combinations(trace.blocks[1], 2):
        go_on(stepper, trace, trace.blocks[1], boundaries, max_replayed_pads)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("max_replayed_pads", [0, ALL_PADS])
@pytest.mark.parametrize("name", NAMES)
def test_after_every_token_of_every_block(stepper_of, name, max_replayed_pads):
    stepper = stepper_of(name, block_size=BLOCK_SIZE)
    for trace in read_traces(name):
        for block in trace.blocks:
            for boundary in block:
                go_on(stepper, trace, block, [boundary], max_replayed_pads)


@pytest.mark.parametrize("max_tokens", [7, 33])
@pytest.mark.parametrize("name", NAMES)
def test_all_at_once_in_chunks_of_any_size(stepper_of, name, max_tokens):
    """Chunks end inside images, inside blocks, and where the budget of the step ends in the middle of a batch."""
    stepper = stepper_of(name, block_size=BLOCK_SIZE)
    traces = read_traces(name)
    for replayed in (0, 2, ALL_PADS):
        stepper.start_over(max_replayed_pads=replayed)
        for trace in traces:
            history = trace.blocks[-1].start + 4
            stepper.add(request_of(trace, stepper.defaults, str(trace.index), history=history, max_tokens=12))
        while stepper.llm.has_unfinished_requests():
            stepper.step(max_tokens)
        for trace in traces:
            expected = trace.output_ids[trace.blocks[-1].start + 4 :][:12]
            assert tuple(stepper.ids[str(trace.index)])[: len(expected)] == expected
