"""How a history is split over steps, and what its replay costs: numbers worked out by hand."""

from tests.parity.stepper import ALL_PADS
from tests.parity.traces import END_ID, PAD_ID, START_ID, read_traces, request_of, text_request

HISTORY = (1000, 1001, 1002, START_ID, *[PAD_ID] * 8, END_ID, 1003, 1004)


def start(stepper, max_replayed_pads, *names, ids=HISTORY):
    stepper.start_over(max_replayed_pads=max_replayed_pads)
    for name in names:
        stepper.add(text_request(ids, name, max_tokens=2))
    with stepper.counted() as counts:
        stepper.run()
    del counts["images_encoded"], counts["encoder_cache_hits"]
    return stepper.scheduled, counts


def test_a_pad_a_step(stepper_of):
    """Up to START; seven pads, a step each, for a chunk ends before a pad; the last pad with all that is left; and one
    token that was answered."""
    scheduled, counts = start(stepper_of("b", block_size=32), 0, "one")
    assert scheduled == [{"one": 4}, *[{"one": 1}] * 7, {"one": 4}, {"one": 1}]
    assert counts == {"replays": 0, "replayed_pads": 0, "replay_passes": 0, "replayed_tokens": 0}


def test_all_pads_in_one_step(stepper_of):
    """One pass for each of the eight pads of the chain, each over all 15 tokens."""
    scheduled, counts = start(stepper_of("b", block_size=32), ALL_PADS, "one")
    assert scheduled == [{"one": 15}, {"one": 1}]
    assert counts == {"replays": 1, "replayed_pads": 8, "replay_passes": 8, "replayed_tokens": 8 * 15}


def test_three_pads_a_step(stepper_of):
    """Up to the third pad, three replayed; the fourth reads a row and three more are replayed; the eighth reads one."""
    scheduled, counts = start(stepper_of("b", block_size=32), 3, "one")
    assert scheduled == [{"one": 7}, {"one": 4}, {"one": 4}, {"one": 1}]
    assert counts == {"replays": 2, "replayed_pads": 6, "replay_passes": 6, "replayed_tokens": 3 * 7 + 3 * 4}


def test_two_requests_share_the_passes(stepper_of):
    """Sixteen pads in two chains of eight: after the eighth pass a look shows that nothing changes any more."""
    scheduled, counts = start(stepper_of("b", block_size=32), ALL_PADS, "one", "two")
    assert scheduled == [{"one": 15, "two": 15}, {"one": 1, "two": 1}]
    assert counts == {"replays": 1, "replayed_pads": 16, "replay_passes": 8, "replayed_tokens": 8 * 30}


def test_two_requests_share_the_room_of_a_step(stepper_of):
    """Five pads a step: the first request takes them all until it has only three left to ask for."""
    scheduled, counts = start(stepper_of("b", block_size=32), 5, "one", "two")
    assert scheduled == [
        {"one": 9, "two": 4},  # pads 1 to 5 of the first; the second stops after START
        {"one": 6, "two": 4},  # the first: pad 6 from its row, 7 and 8; the second: pad 1 from its row, 2, 3 and 4
        {"one": 1, "two": 7},  # the second: pad 5 from its row, 6, 7 and 8, and the rest
        {"two": 1},
    ]
    assert counts["replays"] == 3
    assert counts["replayed_pads"] == 5 + (2 + 3) + 3
    assert counts["replay_passes"] == 5 + 3 + 3
    assert counts["replayed_tokens"] == 5 * 13 + 3 * 10 + 3 * 8


def test_two_blocks_are_two_chains(stepper_of):
    """START in the middle of a chunk begins a new chain: both are exact after as many passes as the longer one has."""
    ids = (1000, START_ID, PAD_ID, PAD_ID, END_ID, START_ID, *[PAD_ID] * 5, START_ID, PAD_ID, 1001)
    scheduled, counts = start(stepper_of("b", block_size=32), ALL_PADS, "one", ids=ids)
    assert scheduled == [{"one": 14}, {"one": 1}]
    assert counts["replayed_pads"] == 8
    # What comes later reads what came before, through attention: the chains are one after the other.
    assert counts["replay_passes"] == 8


def test_pads_outside_a_block_are_not_replayed(stepper_of):
    """They are ordinary tokens; only the split over steps takes them for what they look like."""
    ids = (1000, PAD_ID, PAD_ID, 1001, END_ID, PAD_ID)
    scheduled, counts = start(stepper_of("b", block_size=32), ALL_PADS, "one", ids=ids)
    assert scheduled == [{"one": 6}, {"one": 1}]
    assert set(counts.values()) == {0}


def test_a_preempted_request_is_split_likewise(stepper_of):
    """At its sixth pad: the prompt up to START, then a pad a step, the last of which is answered by the seventh."""
    stepper = stepper_of("b", block_size=32)
    trace = read_traces("b")[0]
    stepper.add(request_of(trace, stepper.defaults, "one", max_tokens=20))
    before = len(trace.expanded_ids) + trace.blocks[0].start + 1
    stepper.run_until("one", trace.blocks[0].start + 1 + 6)
    stepper.forget()
    stepper.scheduled.clear()
    stepper.run_until("one", trace.blocks[0].start + 1 + 7)
    assert stepper.scheduled == [{"one": before}, *[{"one": 1}] * 6]
