"""A preempted request goes on as if nothing had happened, wherever in a latent block it stood."""

from dataclasses import replace

import pytest

from tests.parity.stepper import ALL_PADS, BLOCK_SIZE
from tests.parity.traces import IMAGE_ID, NAMES, PAD_ID, START_ID, check_latents, read_traces, request_of

NUM_AFTER = 4  # tokens after the block, which would differ if a latent in it did


def stepper_for(stepper_of, name, cache):
    off = {"prefix_caching": False} if cache == "off" else {}
    return stepper_of(name, block_size=BLOCK_SIZE, **off)


def preempt_in(block, stepper, trace, cache, max_replayed_pads):
    """Once after START was answered, once after each pad, and after END; each time a new request."""
    num_tokens = min(block.stop + NUM_AFTER, len(trace.output_ids))
    for last in block:
        stepper.start_over(max_replayed_pads=max_replayed_pads)
        request = request_of(trace, stepper.defaults, "one", max_tokens=num_tokens)
        with stepper.counted() as counts, stepper.fed() as fed:
            stepper.add(request)
            stepper.run_until("one", last + 1)
            stepper.preempt()
            if cache == "forgotten":
                stepper.forget()
            stepper.run()
        assert tuple(stepper.ids["one"]) == trace.output_ids[:num_tokens]
        assert stepper.is_empty()
        check_latents(fed, trace, len(trace.expanded_ids) + num_tokens - 1)
        again = [at for at in trace.latents if at <= len(trace.expanded_ids) + last]
        if cache == "kept":
            num_cached = (len(trace.expanded_ids) + last) // BLOCK_SIZE * BLOCK_SIZE
            again = [at for at in again if at > num_cached]  # the first token after what is cached reads a row
        assert counts["replayed_pads"] == (len(again) if max_replayed_pads else 0)
        assert counts["replays"] == (counts["replayed_pads"] > 0)


@pytest.mark.parametrize("max_replayed_pads", [0, ALL_PADS])
@pytest.mark.parametrize(
    ("name", "cache"), [("b", "kept"), ("b", "forgotten"), ("b", "off"), ("c", "kept"), ("c", "forgotten")]
)
def test_at_every_position_of_the_first_block(stepper_of, name, cache, max_replayed_pads):
    trace = read_traces(name)[0]
    preempt_in(trace.blocks[0], stepper_for(stepper_of, name, cache), trace, cache, max_replayed_pads)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("max_replayed_pads", [0, ALL_PADS])
@pytest.mark.parametrize("cache", ["kept", "forgotten", "off"])
@pytest.mark.parametrize(
    ("name", "index"), [(name, index) for name in NAMES for index in range(len(read_traces(name)))]
)
def test_at_every_position_of_every_block(stepper_of, name, index, cache, max_replayed_pads):
    trace = read_traces(name)[index]
    for block in trace.blocks:
        preempt_in(block, stepper_for(stepper_of, name, cache), trace, cache, max_replayed_pads)


@pytest.mark.parametrize("max_replayed_pads", [0, 3, ALL_PADS])
@pytest.mark.parametrize("name", NAMES)
def test_after_every_token(stepper_of, name, max_replayed_pads):
    """Every token of an answer is computed by a request that starts from nothing."""
    stepper = stepper_of(name, block_size=BLOCK_SIZE)
    trace = read_traces(name)[1]
    stepper.start_over(max_replayed_pads=max_replayed_pads)
    num_tokens = trace.blocks[0].stop + NUM_AFTER
    stepper.add(request_of(trace, stepper.defaults, "one", max_tokens=num_tokens))
    for num_ids in range(1, num_tokens):
        stepper.run_until("one", num_ids)
        stepper.forget()
    stepper.run()
    assert tuple(stepper.ids["one"]) == trace.output_ids[:num_tokens]


@pytest.mark.parametrize("name", NAMES)
def test_one_of_several_in_a_batch(stepper_of, name):
    """Its neighbours, in the middle of blocks of their own, are not disturbed, and it not by them."""
    stepper = stepper_of(name, block_size=BLOCK_SIZE)
    traces = read_traces(name)
    for trace in traces:
        stepper.add(request_of(trace, stepper.defaults, str(trace.index), max_tokens=80))
    for trace in traces:
        num_pads = 0
        while stepper.llm.has_unfinished_requests() and num_pads < 2:
            stepper.step()
            ids = stepper.ids[str(trace.index)]
            num_pads = num_pads + 1 if ids and ids[-1] == PAD_ID else 0
        if str(trace.index) not in stepper.reasons:
            stepper.preempt(str(trace.index))
    stepper.run()
    for trace in traces:
        assert tuple(stepper.ids[str(trace.index)]) == trace.output_ids[:80]
    assert stepper.is_empty()


def test_without_latents_it_stays_so(stepper_of):
    """``latent.mode: off`` beside requests with latents: all change places when they are preempted and come back."""
    stepper = stepper_of("b", block_size=BLOCK_SIZE)
    traces = read_traces("b")[:3]
    on = [request_of(trace, stepper.defaults, f"on {trace.index}", max_tokens=50) for trace in traces]
    off = [replace(one, request_id=f"off{one.request_id[2:]}", latent_mode="off") for one in on]
    alone = [stepper.answer(one) for one in off]
    assert not any(START_ID in ids for ids in alone)
    stepper.start_over()
    for pair in zip(on, off, strict=True):
        for one in pair:
            stepper.add(one)
    for one in (*off, *on):
        for _ in range(3):
            stepper.step()
        stepper.preempt(one.request_id)
    stepper.run()
    assert [tuple(stepper.ids[one.request_id]) for one in off] == alone
    assert [tuple(stepper.ids[one.request_id]) for one in on] == [trace.output_ids[:50] for trace in traces]


@pytest.mark.parametrize("lost", ["feedback_BD", "phase_B"])
def test_what_is_lost_in_a_block_is_seen(stepper_of, lost):
    """The comparison has teeth: a row that is not what it was gives other tokens."""
    stepper = stepper_of("b", block_size=BLOCK_SIZE)
    trace = read_traces("b")[0]
    stepper.add(request_of(trace, stepper.defaults, "one", max_tokens=40))
    stepper.run_until("one", trace.blocks[0].start + 3)
    getattr(stepper.model.state, lost).zero_()
    stepper.run()
    assert tuple(stepper.ids["one"]) != trace.output_ids[:40]


@pytest.mark.parametrize("name", NAMES)
def test_when_the_image_was_in_a_cached_prefix(stepper_of, name):
    """Neither the prefix nor the image is cached any more when the request comes back: the image is encoded again."""
    stepper = stepper_of(name, block_size=BLOCK_SIZE)
    trace = read_traces(name)[3]
    stepper.answer(request_of(trace, stepper.defaults, "before", max_tokens=1))
    stepper.add(request_of(trace, stepper.defaults, "one", max_tokens=30))
    stepper.run_until("one", 5)
    assert stepper.num_cached["one"] > trace.expanded_ids.index(IMAGE_ID) + trace.expanded_ids.count(IMAGE_ID)
    stepper.forget()
    with stepper.counted() as counts:
        stepper.run()
    assert tuple(stepper.ids["one"]) == trace.output_ids[:30]
    assert counts["images_encoded"] == 1
