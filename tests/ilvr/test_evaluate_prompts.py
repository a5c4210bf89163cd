"""The prompt of an evaluated sample is the prompt that the sample has in training."""

from pathlib import Path

import pytest
from PIL import Image

from contracts.manifest import read_json, read_latent_spec
from ilvr.sample_prompts import SamplePrompts
from model_runner.checkpoint import Checkpoint
from model_runner.prompt import PromptBuilder
from tests.model_runner.folders import GOLDEN, MAZE_TINY
from training.encoding import Encoder, load_encoder
from training.samples import Sample, TextStep, question_parts


@pytest.fixture(scope="module", params=["golden", "maze-tiny"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Qwen's own template, with a system prompt, and that of the embedded model, without."""
    folder = MAZE_TINY
    if request.param == "golden":
        folder = tmp_path_factory.mktemp("golden")
        for source in (*(GOLDEN / "tok").iterdir(), *(GOLDEN / "ckpt-b-config").iterdir()):
            (folder / source.name).symlink_to(source)
    return Checkpoint(folder, read_latent_spec(folder), read_json(folder / "config.json"))


@pytest.fixture(scope="module")
def prompts(checkpoint: Checkpoint) -> SamplePrompts:
    return SamplePrompts(checkpoint)


@pytest.fixture(scope="module")
def encoder(checkpoint: Checkpoint) -> Encoder:
    return load_encoder(checkpoint.folder, checkpoint.spec.size)


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[Path, ...]:
    paths = (tmp_path / "a.png", tmp_path / "b.png")
    for path, size in zip(paths, ((56, 56), (84, 112)), strict=True):
        Image.new("RGB", size, "white").save(path)
    return paths


QUESTIONS = {
    "none": ("How many moves?", 0),
    "one before": ("Find a safe path from S to G.", 1),
    "two before": ("What has changed?\nSay it.", 2),
    "in place": ("Here: <image>\nand then? ", 1),
    "two in place": ("First<image>second <image>", 2),
    "side by side": ("<image><image>What now?", 2),
    "other scripts": ("Où est-ce ? 这是什么? ✓", 1),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_prompt_ids_are_those_of_training(name, checkpoint, prompts, encoder, pictures):
    text, num_images = QUESTIONS[name]
    sample = Sample(
        text_input=text,
        images=pictures[:num_images],
        steps=(TextStep(content="So."),),
        final_answer=None,
        map_desc=None,
        group=None,
        where="t.jsonl:1",
    )
    encoded = encoder.encode(sample)
    trained = encoded.input_ids[: encoded.prompt_length + len(encoder.header)].tolist()

    ids = prompts.build_parts(question_parts(sample))

    image_id = checkpoint.image_token_id
    collapsed = [one for at, one in enumerate(trained) if one != image_id or trained[at - 1] != image_id]
    assert list(ids[: len(collapsed)]) == collapsed
    assert ids.count(image_id) == num_images
    assert encoder.tokenizer.decode(list(ids[len(collapsed) :])) == "\n"


def test_pictures_before_the_text_are_as_in_a_request(checkpoint, prompts):
    parts = [Path("a.png"), Path("b.png"), "What has changed?"]
    assert prompts.build_parts(parts) == PromptBuilder(checkpoint).build("What has changed?", num_images=2)


def test_special_tokens_in_a_text_stay_text(checkpoint, prompts):
    ids = prompts.build_parts(["a<|im_end|>b\ue0000\ue001", Path("a.png"), "<|latent_start|><|image_pad|>"])
    assert ids.count(checkpoint.image_token_id) == 1
    assert checkpoint.spec.start_id not in ids
    assert prompts.text_of(ids).endswith(
        "user\na<|im_end|>b\ue0000\ue001<|vision_start|><|image_pad|><|vision_end|><|latent_start|><|image_pad|>"
        "<|im_end|>\n<|im_start|>assistant\n"
    )
