"""Answers that end before their time: ``max_tokens`` and stop strings, inside blocks and beside them."""

import pytest

from model_runner.vocabulary import read_vocabulary
from tests.parity.stepper import ALL_PADS, BLOCK_SIZE
from tests.parity.test_http import recorded_steps, shown_steps
from tests.parity.traces import END_ID, GOLDEN, IMAGE_ID, NAMES, PAD_ID, START_ID, read_traces, request_of


@pytest.mark.parametrize("name", NAMES)
def test_max_tokens_at_every_position_of_a_block(stepper_of, name):
    """The first tokens of the answer, and nothing is left behind. All lengths at once, and each alone."""
    stepper = stepper_of(name, block_size=BLOCK_SIZE)
    trace = read_traces(name)[0]
    lengths = range(1, trace.blocks[0].stop + 2)
    for length in lengths:
        stepper.add(request_of(trace, stepper.defaults, f"all {length}", max_tokens=length))
    stepper.run()
    assert stepper.is_empty()
    for length in lengths:
        stepper.answer(request_of(trace, stepper.defaults, f"one {length}", max_tokens=length))
        assert stepper.is_empty()
        for tag in ("all", "one"):
            assert tuple(stepper.ids[f"{tag} {length}"]) == trace.output_ids[:length]
            assert stepper.reasons[f"{tag} {length}"] == "length"


@pytest.mark.parametrize("max_replayed_pads", [0, ALL_PADS])
@pytest.mark.parametrize("name", NAMES)
def test_two_images(stepper_of, name, max_replayed_pads):
    """A chunk ends inside the second image, and the request is preempted inside a block, with both images forgotten."""
    stepper = stepper_of(name, block_size=BLOCK_SIZE)
    traces = [trace for trace in read_traces(name) if len(trace.files) == 2]
    assert traces
    for trace in traces:
        stepper.start_over(max_replayed_pads=max_replayed_pads)
        last_image_token = len(trace.expanded_ids) - 1 - trace.expanded_ids[::-1].index(IMAGE_ID)
        with stepper.counted() as counts:
            stepper.add(request_of(trace, stepper.defaults, "two", max_tokens=60))
            stepper.compute_until("two", last_image_token)
            stepper.run_until("two", trace.blocks[0].start + 4)
            stepper.forget()
            stepper.compute_until("two", last_image_token)
            stepper.run()
        assert tuple(stepper.ids["two"]) == trace.output_ids[:60]
        assert counts["images_encoded"] == 4


def texts_after(trace, vocabulary):
    """The text of the answer after each of its tokens, blocks left out."""
    so_far = b""
    for token in trace.output_ids:
        so_far += vocabulary.bytes_of(token)
        yield so_far.decode(errors="ignore")


def stop_strings(trace, vocabulary):
    """By name: the text of a token after the first block; the end of the text before it with the begin of that after,
    which vLLM finds although a block lies between; and the name of a marker, which is no text."""
    block = trace.blocks[0]
    before, after = (vocabulary.bytes_of(trace.output_ids[at]).decode() for at in (block.start - 1, block.stop))
    later = next(
        text
        for token in trace.output_ids[block.stop + 2 :]
        if (text := vocabulary.bytes_of(token).decode(errors="ignore")).isascii() and len(text) > 3
    )
    return {"after a block": later, "across a block": before[-2:] + after[:2], "a marker": "<|latent_pad|>"}


@pytest.mark.parametrize("kind", ["after a block", "across a block", "a marker"])
def test_stop_strings_of_vllm(stepper_of, checkpoint_of, kind):
    """The answer ends with the token that completes the string: never inside a block, which has no text."""
    stepper = stepper_of("b", block_size=BLOCK_SIZE)
    vocabulary = read_vocabulary(checkpoint_of("b")[0].folder)
    trace = read_traces("b")[0]
    stop = stop_strings(trace, vocabulary)[kind]
    ends = [at for at, text in enumerate(texts_after(trace, vocabulary)) if stop in text]
    num_tokens = ends[0] + 1 if ends else len(trace.output_ids)
    assert (kind == "a marker") == (not ends)
    for _ in range(2):
        ids = stepper.answer(request_of(trace, stepper.defaults, kind), detokenize=True, stop=[stop])
        assert ids == trace.output_ids[:num_tokens]
        assert ids[-1] not in (PAD_ID, START_ID, END_ID)
        assert stepper.is_empty()
        stepper.start_over()


async def test_stop_strings_of_the_runner(golden_server, checkpoint_of):
    """Over HTTP: the steps before the one that holds the string, and that one up to it; and then nothing is amiss."""
    checkpoint, _ = checkpoint_of("b")
    vocabulary = read_vocabulary(checkpoint.folder)
    async with golden_server.async_client() as client:

        async def ask(trace, **more):
            files = [("image", (file, (GOLDEN / "images" / file).read_bytes())) for file in trace.files]
            data = {"question": trace.question, "max_tokens": "120", **more}
            return shown_steps((await client.post("/v1/reason", data=data, files=files)).json())

        for trace in read_traces("b")[:2]:
            steps = recorded_steps(trace, checkpoint, vocabulary)
            strings = stop_strings(trace, vocabulary)
            stop = strings["after a block"]
            last = next(at for at, step in enumerate(steps) if stop in step.get("text", ""))
            text = steps[last]["text"].partition(stop)[0]
            assert await ask(trace, stop=stop) == steps[:last] + ([{"type": "text", "text": text}] if text else [])
            assert any(step["type"] == "latent" for step in steps[:last])
            for never in ("across a block", "a marker"):  # no text of a single step
                if not any(strings[never] in step.get("text", "") for step in steps):
                    assert await ask(trace, stop=strings[never]) == steps
            assert await ask(trace) == steps
