"""Tokens and embedding rows that a base model lacks, the frozen tower, and folders that are none."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from contracts.errors import BadCheckpoint
from tests.training.base_folder import recipe, workplace, write_base
from training.base_model import open_base
from training.batch import Batch, PixelImages, collate
from training.encoding import LATENT_TOKENS
from training.frozen_tower import FrozenTower
from training.samples import read_samples


def test_missing_tokens_come_last_in_the_released_order(tmp_path: Path) -> None:
    base = open_base(write_base(tmp_path / "base", with_latents=False), recipe())
    first = base.encoder.tokenizer.get_vocab_size() - 3
    assert [base.encoder.id_of(token) for token in LATENT_TOKENS] == [first, first + 1, first + 2]
    fields = ("latent_token_id", "latent_start_id", "latent_end_id", "latent_size")
    assert [base.config[field] for field in fields] == [first, first + 1, first + 2, 8]
    assert base.num_added_tokens == 3


def test_rows_that_the_base_has_keep_their_values(tmp_path: Path) -> None:
    """As in the released code, where ILVR's tokens take over rows that Qwen2.5-VL-7B never used."""
    folder = write_base(tmp_path / "base", with_latents=False, num_spare_rows=5)
    weights = load_file(folder / "model.safetensors")
    kept, cut = (open_base(folder, recipe(cut_vocabulary=is_cut)) for is_cut in (False, True))
    num_tokens = kept.encoder.tokenizer.get_vocab_size()
    assert len(kept.model.get_input_embeddings().weight) == num_tokens + 2
    for base in (kept, cut):
        assert base.num_new_rows == 0
        embedding, head = base.model.get_input_embeddings().weight, base.model.lm_head.weight
        assert torch.equal(embedding, weights["model.embed_tokens.weight"][: len(embedding)])
        assert torch.equal(head, weights["lm_head.weight"][: len(head)])
    assert len(cut.model.lm_head.weight) == num_tokens == cut.config["vocab_size"]


def test_new_rows_lie_near_the_mean_and_apart_from_each_other(tmp_path: Path) -> None:
    folder = write_base(tmp_path / "base", with_latents=False, num_spare_rows=0)
    weights = load_file(folder / "model.safetensors")
    base = open_base(folder, recipe())
    assert base.num_new_rows == 3
    for name, rows in (
        ("model.embed_tokens.weight", base.model.get_input_embeddings().weight),
        ("lm_head.weight", base.model.lm_head.weight),
    ):
        old = weights[name]
        assert torch.equal(rows[: len(old)], old)
        new = rows[len(old) :]
        assert new.shape == (3, 64)
        # A tenth of the spread of the old rows: five times that is further than any of 192 normal numbers comes.
        assert ((new - old.mean(0)).abs() < 0.5 * old.std(0)).all()
        assert torch.linalg.matrix_rank(new.double()) == 3
    again = open_base(folder, recipe())
    assert torch.equal(again.model.lm_head.weight, base.model.lm_head.weight)


def test_features_are_the_same_outside_of_the_model(tmp_path: Path) -> None:
    made = workplace(tmp_path)
    base = open_base(made.base, recipe())
    batch: Batch = collate([base.encoder.encode(read_samples(made.data)[1])], base.encoder.padding_id)
    assert isinstance(batch.images, PixelImages)
    assert batch.helpers is not None
    with torch.no_grad():
        want = [images.features(base.model) for images in (batch.images, batch.helpers)]
    tower = FrozenTower(base.model)
    seen = tower.see(batch)
    assert not any("visual" in name for name, _ in base.model.named_parameters())
    for images, features in zip((seen.images, seen.helpers), want, strict=True):
        assert images is not None
        assert torch.equal(images.features(base.model), features)
    assert not any(parameter.requires_grad for parameter in tower.module.parameters())


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda folder: (folder / "config.json").write_text('{"model_type": "llama"}'), "must be a 'qwen2_5_vl'"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json is missing"),
        (lambda folder: (folder / "chat_template.json").unlink(), "no chat template"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"nothing"), "cannot be loaded"),
        (lambda folder: (folder / "model.safetensors").unlink(), "cannot be loaded"),
        (lambda folder: drop(folder, "model.norm.weight"), "1 tensors are missing"),
    ],
)
def test_what_is_no_base_model_is_told_in_one_line(tmp_path: Path, spoil, told: str) -> None:  # type: ignore[no-untyped-def]
    folder = write_base(tmp_path / "base")
    spoil(folder)
    with pytest.raises(BadCheckpoint, match=told) as caught:
        open_base(folder, recipe())
    assert "\n" not in str(caught.value)


def drop(folder: Path, name: str) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
