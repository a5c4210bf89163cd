"""Lengths without decoding, and samples that are too long."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from contracts.errors import InvalidRequest
from tests.training.base_folder import write_base, write_data
from training.encoding import Encoder, load_encoder
from training.sample_lengths import fitting, sample_length
from training.samples import LatentStep, Sample, read_samples


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Encoder, list[Sample]]:
    folder: Path = tmp_path_factory.mktemp("lengths")
    return load_encoder(write_base(folder / "base"), 8), read_samples(write_data(folder, 2))


def test_lengths_are_those_of_the_encoded_samples(made: tuple[Encoder, list[Sample]]) -> None:
    encoder, samples = made
    lengths = [sample_length(encoder, sample) for sample in samples]
    assert lengths == [len(encoder.encode(sample).input_ids) for sample in samples]
    assert lengths[0] != lengths[1]


def test_what_is_too_long_is_left_out_and_named(made: tuple[Encoder, list[Sample]]) -> None:
    encoder, samples = made
    lengths = [sample_length(encoder, sample) for sample in samples]
    assert fitting(encoder, samples, max(lengths), is_error=False, with_helpers=True).warning is None
    found = fitting(encoder, samples, max(lengths) - 1, is_error=False, with_helpers=True)
    long = lengths.index(max(lengths))
    assert found.samples == [samples[1 - long]]
    assert found.warning == (
        f"left out 1 of 2 samples, longer than max_length {max(lengths) - 1}: "
        f"train.jsonl:{long + 1} ({max(lengths)} tokens)"
    )


@pytest.mark.parametrize("is_error", [True, False])
def test_nothing_left_is_an_error(made: tuple[Encoder, list[Sample]], is_error: bool) -> None:
    encoder, samples = made
    with pytest.raises(InvalidRequest, match=r"longer than max_length 10: train.jsonl:1 \(\d+ tokens\)"):
        fitting(encoder, samples, 10, is_error=is_error, with_helpers=True)


@pytest.mark.parametrize("is_helper", [False, True])
def test_a_picture_that_cannot_be_used_is_told_with_its_line(
    made: tuple[Encoder, list[Sample]], tmp_path: Path, is_helper: bool
) -> None:
    """Before training, and not in some step of it. Qwen2-VL takes pictures of at most 200 to 1."""
    encoder, samples = made
    thin, damaged = tmp_path / "thin.png", tmp_path / "damaged.png"
    Image.new("RGB", (202, 1)).save(thin)
    damaged.write_bytes(b"no picture")
    for path, told in ((thin, "a picture of 202 x 1 is too long and thin"), (damaged, "cannot be read")):
        changed = {"steps": (LatentStep(helper_image=path),)} if is_helper else {"images": (path,)}
        with pytest.raises(InvalidRequest, match=rf"^train\.jsonl:2: {path}: .*{told}"):
            fitting(encoder, [samples[0], replace(samples[1], **changed)], 4096, is_error=False, with_helpers=True)


def test_helpers_that_nobody_opens_are_not_looked_at(made: tuple[Encoder, list[Sample]], tmp_path: Path) -> None:
    encoder, samples = made
    sample = replace(samples[0], steps=(LatentStep(helper_image=tmp_path / "missing.png"),))
    assert fitting(encoder, [sample], 4096, is_error=False, with_helpers=False).samples == [sample]
