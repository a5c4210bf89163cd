"""Lengths without decoding, and samples that are too long."""

from pathlib import Path

import pytest

from contracts.errors import InvalidRequest
from tests.training.base_folder import write_base, write_data
from training.encoding import Encoder, load_encoder
from training.sample_lengths import fitting, sample_length
from training.samples import Sample, read_samples


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
    assert fitting(encoder, samples, max(lengths), is_error=False).warning is None
    found = fitting(encoder, samples, max(lengths) - 1, is_error=False)
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
        fitting(encoder, samples, 10, is_error=is_error)
