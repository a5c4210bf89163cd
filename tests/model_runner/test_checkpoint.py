"""A checkpoint folder is checked before anything heavy starts: one sentence for each thing that can be wrong."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from contracts.errors import BadCheckpoint
from contracts.manifest import LatentSpec
from model_runner.checkpoint import read_checkpoint
from tests.model_runner.folders import MAZE_TINY

CONFIG = {
    "model_type": "qwen2_5_vl",
    "image_token_id": 36,
    "latent_token_id": 37,
    "latent_start_id": 38,
    "latent_end_id": 39,
    "latent_size": 8,
    "hidden_size": 64,
    "num_attention_heads": 2,
    "max_position_embeddings": 4096,
    "vocab_size": 40,
}
TEXT = ("hidden_size", "num_attention_heads", "max_position_embeddings", "vocab_size")
LARGEST = 39
EMBEDDING = "model.embed_tokens.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The least that passes: no model could be loaded from it, but nothing heavier is looked at here."""
    write_config(tmp_path)
    for name in ("tokenizer.json", "preprocessor_config.json"):
        (tmp_path / name).write_text("{}")
    write_weights(tmp_path / "model.safetensors")
    return tmp_path


def write_config(folder: Path, **changes: Any) -> None:
    config = {name: value for name, value in {**CONFIG, **changes}.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config))


def write_weights(path: Path, *, name: str = EMBEDDING, num_rows: int = LARGEST + 1) -> None:
    save_file({"a.weight": np.ones((2, 2), np.float32), name: np.ones((num_rows, 2), np.float32)}, path)


def test_the_least_that_passes(folder: Path) -> None:
    checkpoint = read_checkpoint(folder, is_cpu=True)
    assert checkpoint.folder == folder
    assert checkpoint.spec == LatentSpec(pad_id=37, start_id=38, end_id=39, size=8, rule="learned")
    assert checkpoint.image_token_id == 36
    assert checkpoint.context_tokens == 4096


def test_the_layout_with_a_section_for_the_language_model(folder: Path) -> None:
    section = {name: CONFIG[name] for name in TEXT}
    write_config(folder, **{name: None for name in TEXT}, text_config={**section, "max_position_embeddings": 512})
    write_weights(folder / "model.safetensors", name="model.language_model.embed_tokens.weight")
    checkpoint = read_checkpoint(folder, is_cpu=True)
    assert checkpoint.context_tokens == 512
    assert checkpoint.text_config["hidden_size"] == 64


def test_the_rule_can_be_overridden(folder: Path) -> None:
    assert read_checkpoint(folder, rule="fixed", is_cpu=True).spec.rule == "fixed"


def test_the_embedded_checkpoint_passes() -> None:
    spec = read_checkpoint(MAZE_TINY, is_cpu=True).spec
    assert spec == LatentSpec(pad_id=381, start_id=382, end_id=383, size=8, rule="fixed")


def refuses(folder: Path, message: str, *, is_cpu: bool = True) -> None:
    with pytest.raises(BadCheckpoint, match=message) as caught:
        read_checkpoint(folder, is_cpu=is_cpu)
    assert "\n" not in str(caught.value)


class TestFolder:
    def test_nothing_there(self, tmp_path: Path) -> None:
        refuses(tmp_path / "none", "is not a folder")

    def test_a_file(self, folder: Path) -> None:
        refuses(folder / "config.json", "is not a folder")

    @pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "preprocessor_config.json"])
    def test_a_missing_file(self, name: str, folder: Path) -> None:
        (folder / name).unlink()
        refuses(folder, name.replace(".", r"\."))

    def test_preprocessor_config_is_no_json(self, folder: Path) -> None:
        (folder / "preprocessor_config.json").write_text("{")
        refuses(folder, r"preprocessor_config\.json cannot be read")

    def test_config_is_no_json(self, folder: Path) -> None:
        (folder / "config.json").write_text("version https://git-lfs.github.com/spec/v1")
        refuses(folder, r"config\.json cannot be read")


class TestConfig:
    @pytest.mark.parametrize("model_type", ["qwen2_vl", "llama", None])
    def test_another_model(self, model_type: str | None, folder: Path) -> None:
        write_config(folder, model_type=model_type)
        refuses(folder, f"model_type is {model_type!r}")

    def test_another_model_is_said_before_its_missing_ids(self, folder: Path) -> None:
        write_config(folder, model_type="llama", latent_token_id=None)
        refuses(folder, "model_type is 'llama'")

    def test_no_latent_ids(self, folder: Path) -> None:
        write_config(folder, latent_token_id=None, latent_start_id=None, latent_end_id=None)
        refuses(folder, "latent_token_id is in neither")

    def test_ids_that_contradict(self, folder: Path) -> None:
        (folder / "ilvr.json").write_text('{"format": "ilvr-checkpoint/1", "latent_start_id": 30}')
        refuses(folder, "latent_start_id is 38 in config.json but 30 in ilvr.json")

    def test_equal_ids(self, folder: Path) -> None:
        write_config(folder, latent_start_id=37)
        refuses(folder, "three different ids")

    def test_k_below_1(self, folder: Path) -> None:
        write_config(folder, latent_size=0)
        refuses(folder, r"latent_size \(K\) is 0")

    @pytest.mark.parametrize("image_token_id", [None, "36"])
    def test_no_image_token(self, image_token_id: Any, folder: Path) -> None:
        write_config(folder, image_token_id=image_token_id)
        refuses(folder, "no image_token_id")

    @pytest.mark.parametrize("name", ["hidden_size", "num_attention_heads", "max_position_embeddings"])
    @pytest.mark.parametrize("value", [None, "64", 0])
    def test_no_shape(self, name: str, value: Any, folder: Path) -> None:
        write_config(folder, **{name: value})
        refuses(folder, f"no {name}")

    def test_a_section_that_is_none(self, folder: Path) -> None:
        write_config(folder, text_config=[])
        refuses(folder, "text_config")


class TestHeadDim:
    def test_16_is_refused_on_a_cpu_only(self, folder: Path) -> None:
        write_config(folder, num_attention_heads=4)
        refuses(folder, "head_dim is 16; on a CPU")
        assert read_checkpoint(folder, is_cpu=False)

    def test_as_stated(self, folder: Path) -> None:
        write_config(folder, head_dim=48)
        refuses(folder, "head_dim is 48; on a CPU")
        write_config(folder, num_attention_heads=4, head_dim=96)
        assert read_checkpoint(folder, is_cpu=True)


class TestWeights:
    def test_none(self, folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        refuses(folder, "no weights")

    @pytest.mark.parametrize("num_rows", [1, LARGEST])
    def test_an_embedding_smaller_than_the_ids(self, num_rows: int, folder: Path) -> None:
        write_weights(folder / "model.safetensors", num_rows=num_rows)
        refuses(folder, f"has {num_rows} rows .*, the latent ids go up to {LARGEST}")

    def test_a_vocab_size_that_leaves_the_latent_ids_out(self, folder: Path) -> None:
        """The file has the rows; the engine would build a smaller embedding all the same."""
        write_config(folder, vocab_size=10)
        refuses(folder, "has 10 rows")

    def test_an_embedding_in_the_second_shard(self, folder: Path) -> None:
        write_weights(folder / "model-00001-of-00002.safetensors", name="b.weight")
        (folder / "model.safetensors").unlink()
        write_weights(folder / "model-00002-of-00002.safetensors", num_rows=3)
        refuses(folder, "has 3 rows")

    @pytest.mark.parametrize("vocab_size", [LARGEST, None])
    def test_of_other_weight_files_config_says_how_many_rows(self, vocab_size: int | None, folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / "pytorch_model.bin").write_bytes(b"pickled")
        assert read_checkpoint(folder, is_cpu=True)
        write_config(folder, vocab_size=vocab_size)
        refuses(folder, f"the embedding has {vocab_size or 0} rows")

    @pytest.mark.parametrize("kept", [0, 5, 8, 40])
    def test_a_file_cut_in_its_header(self, kept: int, folder: Path) -> None:
        cut(folder / "model.safetensors", kept)
        refuses(folder, "not a complete safetensors file")

    def test_a_file_cut_in_its_data(self, folder: Path) -> None:
        """What a broken download leaves."""
        cut(folder / "model.safetensors", -1)
        refuses(folder, "not a complete safetensors file")

    def test_a_second_shard_cut_in_its_data(self, folder: Path) -> None:
        write_weights(folder / "model2.safetensors", name="b.weight")
        cut(folder / "model2.safetensors", -1)
        refuses(folder, r"model2\.safetensors is not a complete safetensors file")

    @pytest.mark.parametrize("content", [b"version https://git-lfs.github.com/spec/v1\n", b"\2\0\0\0\0\0\0\0[]"])
    def test_something_else(self, content: bytes, folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(content)
        refuses(folder, "not a complete safetensors file")

    def test_a_shard_that_the_index_names_is_missing(self, folder: Path) -> None:
        shutil.move(folder / "model.safetensors", folder / "model-00001-of-00002.safetensors")
        index = {"weight_map": {EMBEDDING: "model-00001-of-00002.safetensors", "x": "model-00002-of-00002.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        refuses(folder, r"model-00002-of-00002\.safetensors is missing")


def cut(path: Path, size: int) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:size])
