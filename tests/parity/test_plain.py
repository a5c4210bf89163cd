"""The plain transformers engine is the published loop: same ids, same pixels."""

import numpy as np
import pytest

from model_runner.engine.transformers_engine import TransformersEngine
from model_runner.settings import RunnerSettings
from tests.parity.traces import GOLDEN, NAMES, START_ID, answer, read_traces, request_of


@pytest.mark.parametrize("name", NAMES)
async def test_plain_engine_gives_the_recorded_ids(name, checkpoint_of):
    checkpoint, defaults = checkpoint_of(name)
    engine = TransformersEngine.start(RunnerSettings(model=checkpoint.folder), checkpoint, defaults)
    for trace in read_traces(name):
        ids, info = await answer(engine, request_of(trace, defaults, f"plain-{trace.index}"))
        assert ids == trace.output_ids
        assert info.num_tokens == len(trace.expanded_ids)


async def test_plain_engine_goes_on_from_a_history_inside_a_block(checkpoint_of):
    checkpoint, defaults = checkpoint_of("b")
    engine = TransformersEngine.start(RunnerSettings(model=checkpoint.folder), checkpoint, defaults)
    trace = read_traces("b")[0]
    history = trace.output_ids.index(START_ID) + 4
    ids, _ = await answer(engine, request_of(trace, defaults, "history", history=history, max_tokens=60))
    assert ids == trace.output_ids[history : history + 60]


@pytest.mark.parametrize("name", NAMES)
def test_image_processor_gives_the_recorded_pixels(name, checkpoint_of):
    """Palette and nearly transparent pictures among them."""
    checkpoint, _ = checkpoint_of(name)
    from model_runner.image_processor import load_image_processor

    processor = load_image_processor(str(checkpoint.folder))
    recorded = np.load(GOLDEN / f"generate-{name}-pixels.npz")
    for trace in read_traces(name):
        features = processor(images=[image.rgb for image in trace.images], return_tensors="np")
        np.testing.assert_allclose(features["pixel_values"], recorded[f"p{trace.index}_pixel_values"], atol=1e-6)
