"""What is cached of a prefix may end inside a latent block: at START, after any pad, at END.

Text before all else moves the block to where a KV block ends. The plain engine says how such a history goes on.
"""

import numpy as np
import pytest

from tests.parity.stepper import ALL_PADS
from tests.parity.traces import ATOL, NAMES, read_traces, request_of

NUM_TEXT = 2  # tokens after END that the whole history holds too
NUM_ANSWERED = 6
BLOCK_SIZES = (32, 64, 128)
START_A_PAD_AND_END = (0, 4, 9)  # places in a block of START, eight pads and END

some_places = pytest.mark.parametrize(
    ("block_size", "places"), [(32, range(10)), (64, START_A_PAD_AND_END), (128, START_A_PAD_AND_END)]
)
all_places = pytest.mark.parametrize(("block_size", "places"), [(size, range(10)) for size in BLOCK_SIZES])
replayed_or_not = pytest.mark.parametrize("max_replayed_pads", [0, ALL_PADS])


class History:
    """A trace whose first block lies so that one of its tokens is the last of a KV block of the cache."""

    def __init__(self, trace, defaults, place, block_size):
        self.trace = trace
        self.defaults = defaults
        self.block = trace.blocks[0]
        self.last = self.block[place]  # of the KV block, as an index of the answer
        self.num_shifted = -(len(trace.expanded_ids) + self.last + 1) % block_size
        self.num_aligned = self.num_shifted + len(trace.expanded_ids) + self.last + 1

    def request(self, name, num_ids, max_tokens=NUM_ANSWERED):
        return request_of(
            self.trace, self.defaults, name, history=num_ids, max_tokens=max_tokens, num_shifted=self.num_shifted
        )

    def whole(self, name, max_tokens=NUM_ANSWERED):
        return self.request(name, self.block.stop + NUM_TEXT, max_tokens)

    def one_more(self, name):
        """With one token after the KV block: a newcomer that looks like a request that decodes."""
        return self.request(name, self.last + 2)


def histories(stepper, places):
    trace = read_traces("b")[0]
    return [History(trace, stepper.defaults, place, stepper.block_size) for place in places]


def check_hits(stepper, plain, places, max_replayed_pads):
    for history in histories(stepper, places):
        stepper.start_over(max_replayed_pads=max_replayed_pads)
        stepper.answer(history.whole("before", max_tokens=1))
        for request in (history.whole("whole"), history.one_more("one more")):
            with stepper.fed() as fed:
                ids = stepper.answer(request)
            expected, latents = plain.answer(request)
            assert ids == expected
            assert stepper.num_cached[request.request_id] == history.num_aligned
            again = {at: vector for at, vector in latents.items() if at >= history.num_aligned}
            assert fed.keys() == again.keys()
            for at, vector in again.items():
                np.testing.assert_allclose(fed[at], vector, atol=ATOL)


@replayed_or_not
@some_places
def test_hits_that_end_inside_a_block(stepper_of, plain_of, block_size, places, max_replayed_pads):
    check_hits(stepper_of("b", block_size=block_size), plain_of("b"), places, max_replayed_pads)


@pytest.mark.slow
@replayed_or_not
@all_places
def test_hits_that_end_anywhere_in_a_block(stepper_of, plain_of, block_size, places, max_replayed_pads):
    check_hits(stepper_of("b", block_size=block_size), plain_of("b"), places, max_replayed_pads)


def check_sharing(stepper, plain, places, max_replayed_pads):
    """Three that come in one step on a cold cache share a KV block that the first of them is still filling."""
    for history in histories(stepper, places):
        for name, requests in {
            "the same": [history.whole(f"{n}") for n in range(3)],
            "one more": [history.whole("0"), history.one_more("1"), history.one_more("2")],
        }.items():
            stepper.start_over(max_replayed_pads=max_replayed_pads)
            for request in requests:
                stepper.add(request)
            with stepper.counted() as counts:
                assert len(stepper.step()) == 3, name
            if max_replayed_pads == 0:  # but for first tokens that follow another request's of the same step
                assert counts["replayed_pads"] < len(requests)
            stepper.run()
            for request in requests:
                assert tuple(stepper.ids[request.request_id]) == plain.answer(request)[0], name
            # Not replayed, the first computes no pad in this step, and so no KV block that one is in.
            is_in_block = max_replayed_pads > 0 or history.last == history.block.start
            num_shared = history.num_aligned - (0 if is_in_block else stepper.block_size)
            assert [stepper.num_cached[str(n)] for n in range(3)] == [0, num_shared, num_shared]


@replayed_or_not
@some_places
def test_three_at_once_on_a_cold_cache(stepper_of, plain_of, block_size, places, max_replayed_pads):
    check_sharing(stepper_of("b", block_size=block_size), plain_of("b"), places, max_replayed_pads)


@pytest.mark.slow
@replayed_or_not
@all_places
def test_three_at_once_anywhere_in_a_block(stepper_of, plain_of, block_size, places, max_replayed_pads):
    check_sharing(stepper_of("b", block_size=block_size), plain_of("b"), places, max_replayed_pads)


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_recorded_traces(stepper_of, name, block_size):
    """All at once, with every KV block size that the kernel for CPUs knows, cold and then cached."""
    stepper = stepper_of(name, block_size=block_size)
    traces = read_traces(name)
    for when in ("cold", "warm"):
        for trace in traces:
            stepper.add(request_of(trace, stepper.defaults, f"{when} {trace.index}"))
        stepper.run()
        for trace in traces:
            assert tuple(stepper.ids[f"{when} {trace.index}"]) == trace.output_ids
    assert stepper.is_empty()
