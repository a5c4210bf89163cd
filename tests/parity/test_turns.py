"""A second question about what was answered with latent blocks: the answer comes back as part of the prompt."""

from dataclasses import replace

import numpy as np
import pytest

from tests.parity.stepper import ALL_PADS, BLOCK_SIZE
from tests.parity.traces import ATOL, IMAGE_ID, NAMES, PAD_ID, read_traces, request_of

TURN = (151645, 198, 151644, 872, 198)  # <|im_end|>, a line end, <|im_start|>user, a line end
IMAGE_END_ID = 151653
NUM_FIRST, NUM_SECOND = 60, 30  # tokens answered to the first and the second question


def second_request(stepper, traces, name, *, has_image):
    """Asks what the second trace asks, after the first trace's answer; with its image, or of the first image alone."""
    first, second = traces
    question = second.prompt_ids[second.prompt_ids.index(IMAGE_END_ID) + 1 :]
    assert IMAGE_ID not in question
    request = request_of(first, stepper.defaults, name, history=NUM_FIRST, max_tokens=NUM_SECOND)
    ids = request.prompt_ids + TURN + (second.prompt_ids if has_image else question)
    return replace(request, prompt_ids=ids, images=first.images + second.images if has_image else first.images)


def answer_first(stepper, trace):
    assert (
        stepper.answer(request_of(trace, stepper.defaults, "first", max_tokens=NUM_FIRST))
        == (trace.output_ids[:NUM_FIRST])
    )


@pytest.mark.parametrize("name", NAMES)
def test_second_question(stepper_of, plain_of, name):
    """On a warm cache and on a cold one, pads a step each and replayed: ids and latents of the plain engine."""
    stepper = stepper_of(name, block_size=BLOCK_SIZE)
    traces = read_traces(name)[:2]
    request = second_request(stepper, traces, "second", has_image=False)
    assert request.prompt_ids.count(PAD_ID) > 8
    expected, latents = plain_of(name).answer(request)
    num_first = len(traces[0].expanded_ids) + NUM_FIRST
    for is_warm, max_replayed_pads in ((True, 0), (True, ALL_PADS), (False, 0), (False, ALL_PADS)):
        stepper.start_over(max_replayed_pads=max_replayed_pads)
        if is_warm:
            answer_first(stepper, traces[0])
        with stepper.fed() as fed:
            assert stepper.answer(request) == expected
        num_cached = (num_first - 1) // BLOCK_SIZE * BLOCK_SIZE if is_warm else 0
        assert stepper.num_cached["second"] == num_cached
        assert fed.keys() == {at for at in latents if at >= num_cached}
        for at, vector in fed.items():
            np.testing.assert_allclose(vector, latents[at], atol=ATOL)


@pytest.mark.parametrize("name", NAMES)
def test_second_question_with_an_image_of_its_own(stepper_of, plain_of, name):
    """An image after a latent block: as in the plain engine, and the first image is not encoded again."""
    stepper = stepper_of(name, block_size=BLOCK_SIZE)
    traces = read_traces(name)[:2]
    request = second_request(stepper, traces, "second", has_image=True)
    expected, latents = plain_of(name).answer(request)
    assert len(expected) == NUM_SECOND
    for max_replayed_pads, max_tokens in ((0, None), (ALL_PADS, None), (0, 5), (ALL_PADS, 11)):
        stepper.start_over(max_replayed_pads=max_replayed_pads)
        stepper.add(request)
        with stepper.fed() as fed:
            while stepper.llm.has_unfinished_requests():
                stepper.step(max_tokens)
        assert tuple(stepper.ids["second"]) == expected
        assert fed.keys() == latents.keys()
        for at, vector in fed.items():
            np.testing.assert_allclose(vector, latents[at], atol=ATOL)
        stepper.start_over(max_replayed_pads=max_replayed_pads)
        answer_first(stepper, traces[0])
        with stepper.counted() as counts:
            assert stepper.answer(request) == expected
        assert counts["images_encoded"] == 1
        assert stepper.num_cached["second"] > len(traces[0].expanded_ids)
