"""How much of a chunk may be computed in one step, against a loop that counts. Whole engines: ``tests/parity``."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_runner.model.scheduler import allowed_tokens

PAD, A, B = 9, 1, 2


def count(ids, room):
    """Token by token, until a pad comes for which there is no room."""
    num_pads = 0
    for num_tokens, token in enumerate(ids):
        if token == PAD and num_pads == room:
            return num_tokens, num_pads
        num_pads += token == PAD
    return len(ids), num_pads


@pytest.mark.parametrize(
    ("ids", "room", "allowed"),
    [
        ([], 0, (0, 0)),
        ([A, B], 0, (2, 0)),
        ([PAD], 0, (0, 0)),
        ([A, PAD, B], 0, (1, 0)),
        ([A, PAD, B], 1, (3, 1)),
        ([PAD, PAD, PAD], 2, (2, 2)),
        ([PAD, A, PAD, B, PAD], 2, (4, 2)),
        ([PAD, A, PAD, B, PAD], 3, (5, 3)),
        ([PAD, A], 1000, (2, 1)),
    ],
)
def test_by_hand(ids, room, allowed):
    assert allowed_tokens(ids, PAD, room) == allowed


@given(st.lists(st.sampled_from([A, B, PAD])), st.integers(0, 8))
def test_like_a_loop_that_counts(ids, room):
    assert allowed_tokens(ids, PAD, room) == count(ids, room)


@given(st.lists(st.sampled_from([A, PAD]), min_size=1), st.integers(0, 8))
def test_a_history_comes_to_its_end(ids, room):
    """Chunk after chunk: each begins with what the one before had no room for, which is a pad."""
    at = 0
    num_chunks = 0
    while at < len(ids):
        allowed, num_pads = allowed_tokens(ids[at + 1 :], PAD, room)
        at += 1 + allowed
        num_chunks += 1
        assert num_pads <= room
        assert at == len(ids) or (ids[at] == PAD and num_pads == room)
    assert num_chunks <= 1 + ids.count(PAD) // (room + 1) + (ids.count(PAD) % (room + 1) > 0)
