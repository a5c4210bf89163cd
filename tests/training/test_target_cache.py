"""Targets on disk: the same back, nothing stale under a name, nothing damaged taken for whole."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from contracts.errors import BadSettings
from tests.training.base_folder import TOLERANCE, Workplace, recipe, workplace, write_base
from training.encoding import load_encoder
from training.samples import Sample, TextStep, read_samples
from training.target_cache import SampleTargets, TargetCache, cache_identity, folder_sha256, joined, split
from training.teacher import SelectedBlock, Targets

FOUND = SampleTargets(torch.arange(6.0).reshape(2, 3), torch.tensor([4, 5]))
KEY = "ab" * 32


def test_what_was_written_is_read(tmp_path: Path) -> None:
    cache = TargetCache(tmp_path, "teacher")
    assert not cache.has(KEY)
    cache.write(KEY, FOUND)
    assert cache.has(KEY)
    read = cache.read(KEY)
    assert torch.equal(read.vectors_SH, FOUND.vectors_SH)
    assert torch.equal(read.column_S, FOUND.column_S)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [f"{KEY}.safetensors"]


def test_a_file_under_another_name_is_refused(tmp_path: Path) -> None:
    cache = TargetCache(tmp_path, "teacher")
    cache.write(KEY, FOUND)
    other = "ab" + "cd" * 31
    next(tmp_path.rglob("*.safetensors")).rename(tmp_path / "ab" / f"{other}.safetensors")
    with pytest.raises(BadSettings, match="holds other targets than its name says; delete it"):
        cache.read(other)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    cache = TargetCache(tmp_path, "teacher")
    cache.write(KEY, FOUND)
    file = next(tmp_path.rglob("*.safetensors"))
    whole = file.read_bytes()
    file.write_bytes(whole[:-4] + b"\x00\x00\x00\x01")  # one value is another
    with pytest.raises(BadSettings, match="holds other targets"):
        cache.read(KEY)
    file.write_bytes(whole[:-4])
    with pytest.raises(BadSettings, match="cannot be read"):
        cache.read(KEY)


def test_every_part_of_a_sample_is_in_its_name(tmp_path: Path) -> None:
    made = workplace(tmp_path)
    sample = read_samples(made.data)[0]
    cache = TargetCache(tmp_path, "teacher")
    picture = tmp_path / "other.png"
    picture.write_bytes(sample.images[0].read_bytes() + b"x")
    latent = sample.steps[1]
    changed: list[Sample] = [
        replace(sample, text_input="?"),
        replace(sample, steps=(TextStep(content="?"), *sample.steps[1:])),
        replace(sample, images=(picture,)),
        replace(sample, steps=(sample.steps[0], replace(latent, helper_image=picture), *sample.steps[2:])),
        replace(sample, steps=(sample.steps[0], replace(latent, target_cells=(1,)), *sample.steps[2:])),
    ]
    keys = [cache.key(one) for one in changed]
    assert len({cache.key(sample), TargetCache(tmp_path, "another").key(sample), *keys}) == 7
    # Where it was read from, and its answer, decide no target.
    assert cache.key(replace(sample, where="elsewhere:9", final_answer="?")) == cache.key(sample)


def test_teacher_tokenizer_and_settings_are_in_every_name(tmp_path: Path) -> None:
    first, second = write_base(tmp_path / "a"), write_base(tmp_path / "b", seed=1)
    encoder = load_encoder(first, 8)
    hashes = [folder_sha256(folder) for folder in (first, second)]
    processor = json.loads((second / "preprocessor_config.json").read_text())
    (second / "preprocessor_config.json").write_text(json.dumps({**processor, "max_pixels": 28 * 28}))
    identities = {
        cache_identity(hashes[0], encoder, {"top_p": 0.9}),
        cache_identity(hashes[1], encoder, {"top_p": 0.9}),
        cache_identity(hashes[0], encoder, {"top_p": 0.8}),
        cache_identity(hashes[0], replace(encoder, template="?"), {"top_p": 0.9}),
        cache_identity(hashes[0], load_encoder(second, 8), {"top_p": 0.9}),
    }
    assert len(identities) == 5
    assert cache_identity(hashes[0], load_encoder(first, 8), {"top_p": 0.9}) in identities


def test_targets_of_a_batch_are_split_and_joined() -> None:
    block = SelectedBlock([0], None, None)
    whole = Targets(
        vectors_SH=torch.arange(9.0).reshape(3, 3),
        row_S=torch.tensor([0, 2, 2]),
        column_S=torch.tensor([7, 8, 9]),
        blocks=((block,), (), (block,)),
    )
    parts = split(whole)
    assert [len(part.column_S) for part in parts] == [1, 0, 2]
    again = joined(parts, torch.device("cpu"))
    assert torch.equal(again.vectors_SH, whole.vectors_SH)
    assert torch.equal(again.row_S, whole.row_S)
    assert torch.equal(again.column_S, whole.column_S)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one at every forward pass of a frozen teacher."""
    from training import frozen_targets

    calls: list[int] = []
    real = frozen_targets.targets
    monkeypatch.setattr(frozen_targets, "targets", lambda *given: calls.append(1) or real(*given))
    return calls


def test_a_second_run_needs_no_teacher(tmp_path: Path, counted: list[int]) -> None:
    made: Workplace = workplace(tmp_path)
    cache = tmp_path / "cache"
    _, first = made.run("first", recipe(), cache=cache)
    assert len(counted) == 4  # once a sample, though there are two epochs
    _, second = made.run("second", recipe(), cache=cache)
    assert len(counted) == 4
    assert second.losses == first.losses
    # Another base model makes its own.
    write_base(tmp_path / "other", seed=1)
    _, other = made.run("third", recipe(), cache=cache, model=tmp_path / "other")
    assert len(counted) == 8
    assert other.losses != first.losses


def test_one_sample_more_costs_one_pass_more(tmp_path: Path, counted: list[int]) -> None:
    made = workplace(tmp_path)
    made.run("first", recipe(), cache=tmp_path / "cache", stop_after=1)
    more = tmp_path / "more.jsonl"
    lines = made.data.read_text()
    more.write_text(lines + lines.splitlines()[0].replace("0. ", "more. ") + "\n")
    made.run("second", recipe(), cache=tmp_path / "cache", data=more, stop_after=1)
    assert len(counted) == 5


def test_cached_targets_are_those_of_a_teacher_at_its_first_step(tmp_path: Path) -> None:
    made = workplace(tmp_path)
    _, frozen = made.run("frozen", recipe(), stop_after=1)
    _, moving = made.run("moving", recipe(teacher="ema"), stop_after=1)
    assert moving.losses == pytest.approx(frozen.losses, rel=TOLERANCE)
