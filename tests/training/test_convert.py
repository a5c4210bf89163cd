"""Converted checkpoints hold exactly the weights of their source; whatever is wrong leaves nothing behind."""

import fcntl
import hashlib
import json
import os
import shutil
import zipfile
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from contracts.errors import BadCheckpoint, IlvrError, InvalidRequest
from contracts.manifest import LatentSpec, read_latent_spec
from tests.training.published import IDS, NUM_ROWS, save, write_json, write_published, write_small_files
from training.convert import conversion
from training.convert.conversion import Progress, convert
from training.convert.plan import Options
from training.convert.source import Source

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
FIRST, SECOND = "pytorch_model-00001-of-00007.bin", "pytorch_model-00002-of-00007.bin"
INDEX = "pytorch_model.bin.index.json"
CREATED_BY = {"command": "a test"}


def converted_to(target: Path, source: Path, **options: Any) -> dict[str, Tensor]:
    convert(source, target, Options(**options), created_by=CREATED_BY)
    return loaded(target)


def loaded(folder: Path) -> dict[str, Tensor]:
    """All tensors, as the safetensors library reads them."""
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_published(tmp_path / "source")
    return tmp_path / "source"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "there" / "target"


class TestWeights:
    @pytest.mark.parametrize("layout", ["bin-7", "bin", "safetensors-3", "safetensors"])
    def test_every_value_rounded_once(self, layout: str, tmp_path: Path, target: Path) -> None:
        weights = write_published(tmp_path / "source", layout=layout)
        got = converted_to(target, tmp_path / "source")
        assert got.keys() == weights.keys()
        for name, tensor in weights.items():
            assert got[name].dtype == torch.bfloat16
            assert torch.equal(got[name].view(torch.int16), tensor.bfloat16().view(torch.int16)), name

    def test_rounding_by_hand(self, source: Path, target: Path) -> None:
        """bf16 keeps 7 bits after the point: at 1 the step is 1/128, and half a step goes to the even neighbour."""
        weights = torch.load(source / FIRST)
        given = [1 + 1 / 256, 1 + 3 / 256, 1 + 1 / 256 + 1 / 4096, -0.0, 2.0**-126, 1 / 3]
        expected = [1.0, 1 + 2 / 128, 1 + 1 / 128, -0.0, 2.0**-126, 0.333984375]
        # The tower stands first; a float32 tensor of it takes the same way as the language model's.
        weights["visual.blocks.0.norm1.weight"] = torch.tensor([*given, *[0.0] * 26])
        torch.save(weights, source / FIRST)
        got = converted_to(target, source)["visual.blocks.0.norm1.weight"][: len(given)]
        assert got.tolist() == expected
        assert torch.signbit(got[3])

    def test_keep_leaves_each_dtype(self, source: Path, target: Path) -> None:
        got = converted_to(target, source, dtype="keep")
        assert {tensor.dtype for name, tensor in got.items() if name.startswith("visual.")} == {torch.bfloat16}
        assert {tensor.dtype for name, tensor in got.items() if "visual." not in name} == {torch.float32}
        assert read(target / "config.json")["torch_dtype"] == "float32"

    def test_float32(self, source: Path, target: Path) -> None:
        got = converted_to(target, source, dtype="float32")
        assert {tensor.dtype for tensor in got.values()} == {torch.float32}

    def test_a_view_of_a_larger_storage(self, tmp_path: Path, target: Path) -> None:
        weights = write_published(tmp_path / "source", layout="bin")
        weights["model.norm.weight"] = torch.arange(128.0)[::2]
        torch.save(weights, tmp_path / "source" / "pytorch_model.bin")
        assert converted_to(target, tmp_path / "source")["model.norm.weight"].tolist() == list(range(0, 128, 2))

    @pytest.mark.filterwarnings("error")
    def test_the_stock_class_loads_it(self, source: Path, target: Path) -> None:
        got = converted_to(target, source)
        model, info = Qwen2_5_VLForConditionalGeneration.from_pretrained(target, output_loading_info=True)
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]
        assert model.dtype == torch.bfloat16
        assert torch.equal(model.lm_head.weight, got[HEAD])

    def test_names_since_transformers_5(self, tmp_path: Path, target: Path) -> None:
        weights = write_published(tmp_path / "source", layout="bin")
        renamed = {
            "model." + name if name.startswith("visual.") else name.replace("model.", "model.language_model.", 1): one
            for name, one in weights.items()
        }
        torch.save(renamed, tmp_path / "source" / "pytorch_model.bin")
        assert converted_to(target, tmp_path / "source").keys() == renamed.keys()


class TestFiles:
    def test_manifest(self, source: Path, target: Path) -> None:
        convert(source, target, Options(), created_by=CREATED_BY)
        assert read_latent_spec(target) == LatentSpec(pad_id=47, start_id=48, end_id=49, size=8, rule="learned")
        manifest = read(target / "ilvr.json")
        digest = hashlib.sha256((target / "model.safetensors").read_bytes()).hexdigest()
        assert manifest["sha256"] == {"model.safetensors": digest}
        made = manifest["created_by"]
        assert made["command"] == "a test"
        assert made["source"]["folder"] == "source"
        assert made["source"]["sha256"] == {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in source.glob("*.bin")
        }

    def test_config_changes_in_dtype_only(self, source: Path, target: Path) -> None:
        convert(source, target, Options(), created_by=CREATED_BY)
        assert read(target / "config.json") == {**read(source / "config.json"), "torch_dtype": "bfloat16"}

    def test_small_files_are_copied_and_nothing_else(self, source: Path, target: Path) -> None:
        (source / "optimizer.pt").write_bytes(b"large")
        convert(source, target, Options(), created_by=CREATED_BY)
        copied = {
            "tokenizer.json",
            "tokenizer_config.json",
            "preprocessor_config.json",
            "chat_template.json",
            "generation_config.json",
        }
        assert {path.name for path in target.iterdir()} == {
            *copied,
            "config.json",
            "ilvr.json",
            "model.safetensors",
        }
        assert all((target / name).read_bytes() == (source / name).read_bytes() for name in copied)

    def test_shards_are_bounded_and_indexed(self, source: Path, target: Path) -> None:
        limit = 80_000  # the largest tensor, the patch embedding, has 75,264 bytes
        got = converted_to(target, source, max_shard_bytes=limit)
        files = sorted(path.name for path in target.glob("*.safetensors"))
        assert len(files) > 2
        assert files[0] == f"model-00001-of-{len(files):05}.safetensors"
        index = read(target / "model.safetensors.index.json")
        assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in got.values())
        for file in files:
            held = load_file(target / file)
            assert sum(tensor.nbytes for tensor in held.values()) <= limit
            assert {name for name, named in index["weight_map"].items() if named == file} == held.keys()
        assert read(target / "ilvr.json")["sha256"].keys() == set(files)

    def test_a_tensor_above_the_limit_has_a_file_of_its_own(self, source: Path, target: Path) -> None:
        got = converted_to(target, source, max_shard_bytes=1)
        assert len(list(target.glob("*.safetensors"))) == len(got)

    def test_the_manifest_of_the_source_decides_how_blocks_end(self, source: Path, tmp_path: Path) -> None:
        write_json(source / "ilvr.json", {"format": "ilvr-checkpoint/1", "latent_exit": "fixed"})
        convert(source, tmp_path / "a", Options(), created_by=CREATED_BY)
        convert(source, tmp_path / "b", Options(latent_exit="learned"), created_by=CREATED_BY)
        assert [read(tmp_path / name / "ilvr.json")["latent_exit"] for name in "ab"] == ["fixed", "learned"]

    def test_progress_comes_to_its_end(self, source: Path, target: Path) -> None:
        seen: list[Progress] = []
        convert(source, target, Options(), created_by=CREATED_BY, on_progress=seen.append)
        assert seen[-1].done_bytes == seen[-1].total_bytes > 0
        assert [one.done_bytes for one in seen] == sorted(one.done_bytes for one in seen)
        assert {one.what for one in seen} >= {f"checking {FIRST}", "writing model.safetensors"}


class TestVocabulary:
    def test_more_rows(self, source: Path, target: Path) -> None:
        """New rows are the mean of the others, here by numpy in float64."""
        original = {name: found for file in source.glob("*.bin") for name, found in torch.load(file).items()}
        got = converted_to(target, source, num_rows=64)
        for name in (EMBEDDING, HEAD):
            assert got[name].shape == (64, 64)
            assert torch.equal(got[name][:NUM_ROWS], original[name].bfloat16())
            mean = torch.from_numpy(original[name].numpy().astype(np.float64).mean(0)).bfloat16()
            assert torch.equal(got[name][NUM_ROWS:], mean.expand(14, -1))
        assert read(target / "config.json")["vocab_size"] == 64

    def test_a_new_row_is_never_the_best(self, source: Path, target: Path) -> None:
        head = converted_to(target, source, num_rows=64)[HEAD].double()
        hidden = torch.randn(100, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        assert int((hidden @ head.T).argmax(-1).max()) < NUM_ROWS

    def test_fewer_rows_of_a_padded_one(self, tmp_path: Path, target: Path) -> None:
        weights = write_published(tmp_path / "source", config={"vocab_size": 64})
        got = converted_to(target, tmp_path / "source", num_rows=NUM_ROWS)
        assert torch.equal(got[EMBEDDING], weights[EMBEDDING][:NUM_ROWS].bfloat16())
        assert read(target / "config.json")["vocab_size"] == NUM_ROWS

    def test_a_padded_one_is_kept(self, tmp_path: Path, target: Path) -> None:
        write_published(tmp_path / "source", config={"vocab_size": 64})
        assert len(converted_to(target, tmp_path / "source")[HEAD]) == 64

    def test_both_layouts_of_the_config(self, source: Path, target: Path) -> None:
        config = read(source / "config.json")
        text = {
            name: config.pop(name)
            for name in list(config)
            if not (
                name.startswith(("vision", "image", "video", "latent", "arch", "tie", "stage")) or name == "model_type"
            )
        }
        write_json(source / "config.json", {**config, "text_config": {**text, "dtype": "float32"}})
        convert(source, target, Options(num_rows=64), created_by=CREATED_BY)
        written = read(target / "config.json")
        assert written["text_config"]["vocab_size"] == 64
        assert written["text_config"]["dtype"] == written["torch_dtype"] == "bfloat16"
        assert "vocab_size" not in written

    def test_used_rows_are_not_cut(self, source: Path, target: Path) -> None:
        refuses(source, target, "id 49 is in use and needs 50 rows.* would have 49", InvalidRequest, num_rows=49)

    def test_a_tokenizer_with_ids_behind_the_latents(self, source: Path, target: Path) -> None:
        tokenizer = read(source / "tokenizer.json")
        tokenizer["added_tokens"].append({**tokenizer["added_tokens"][0], "id": 50, "content": "<|extra|>"})
        write_json(source / "tokenizer.json", tokenizer)
        refuses(source, target, "id 50 is in use .* make room for it with --vocab resize", InvalidRequest)
        convert(source, target, Options(num_rows=51), created_by=CREATED_BY)

    def test_a_config_that_was_not_resized_is_corrected(self, source: Path, target: Path) -> None:
        write_json(source / "config.json", {**read(source / "config.json"), "vocab_size": 47})
        done = convert(source, target, Options(), created_by=CREATED_BY)
        assert done.plan.notes == ["config.json: vocab_size was 47, the embedding has 50 rows; corrected"]
        assert read(target / "config.json")["vocab_size"] == NUM_ROWS

    def test_embedding_and_head_of_different_sizes(self, tmp_path: Path, target: Path) -> None:
        weights = write_published(tmp_path / "source", layout="bin")
        torch.save({**weights, HEAD: torch.ones(64, 64)}, tmp_path / "source" / "pytorch_model.bin")
        refuses(tmp_path / "source", target, "different numbers of rows")


class TestTiedHead:
    def tied(self, folder: Path, head: Tensor | None) -> Path:
        weights = write_published(folder, layout="bin", config={"tie_word_embeddings": True})
        del weights[HEAD]
        torch.save(weights if head is None else {**weights, HEAD: head}, folder / "pytorch_model.bin")
        return folder

    def test_left_out(self, tmp_path: Path, target: Path) -> None:
        got = converted_to(target, self.tied(tmp_path / "source", None), num_rows=64)
        assert HEAD not in got
        assert len(got[EMBEDDING]) == 64
        model = Qwen2_5_VLForConditionalGeneration.from_pretrained(target)
        assert torch.equal(model.lm_head.weight, got[EMBEDDING])

    def test_saved_with_it(self, tmp_path: Path, target: Path) -> None:
        """As ``torch.save`` of a tied model does: two names, one storage."""
        source = self.tied(tmp_path / "source", None)
        weights = torch.load(source / "pytorch_model.bin")
        torch.save({**weights, HEAD: weights[EMBEDDING]}, source / "pytorch_model.bin")
        done = convert(source, target, Options(), created_by=CREATED_BY)
        assert HEAD not in loaded(target)
        assert "left out" in done.plan.notes[0]

    def test_another_than_the_embedding(self, tmp_path: Path, target: Path) -> None:
        refuses(self.tied(tmp_path / "source", torch.ones(NUM_ROWS, 64)), target, "tie_word_embeddings, but lm_head")

    def test_missing_but_not_tied(self, tmp_path: Path, target: Path) -> None:
        source = self.tied(tmp_path / "source", None)
        write_json(source / "config.json", {**read(source / "config.json"), "tie_word_embeddings": False})
        refuses(source, target, "1 tensors are missing: lm_head.weight")


class TestLatents:
    def test_of_the_tokenizer_alone(self, tmp_path: Path, target: Path) -> None:
        none = dict.fromkeys(("latent_token_id", "latent_start_id", "latent_end_id", "latent_size"))
        write_published(tmp_path / "source", config=none)
        refuses(tmp_path / "source", target, "does not say K .* --latent-size", InvalidRequest)
        convert(tmp_path / "source", target, Options(latent_size=4), created_by=CREATED_BY)
        assert read_latent_spec(target) == LatentSpec(pad_id=47, start_id=48, end_id=49, size=4, rule="learned")

    def test_of_another_k_than_stated(self, source: Path, target: Path) -> None:
        refuses(source, target, "latent_size is 8 in config.json but 4 in --latent-size", latent_size=4)

    def test_tokenizer_and_config_disagree(self, source: Path, target: Path) -> None:
        write_json(source / "config.json", {**read(source / "config.json"), "latent_start_id": 47})
        refuses(source, target, r"latent_start_id is 47 in config.json but 48 in tokenizer.json \(<\|latent_start")

    def test_manifest_and_config_disagree(self, source: Path, target: Path) -> None:
        write_json(source / "ilvr.json", {"format": "ilvr-checkpoint/1", "latent_end_id": 7})
        refuses(source, target, "latent_end_id is 49 in config.json but 7 in ilvr.json")

    @pytest.mark.parametrize("manifest", [{"format": "other"}, {"format": "ilvr-checkpoint/1", "latent_exit": "x"}])
    def test_a_manifest_of_another_kind(self, manifest: Any, source: Path, target: Path) -> None:
        write_json(source / "ilvr.json", manifest)
        refuses(source, target, "is no manifest")

    @pytest.mark.parametrize("value", ["47", True, -1])
    def test_an_impossible_id(self, value: Any, source: Path, target: Path) -> None:
        write_json(source / "config.json", {**read(source / "config.json"), "latent_token_id": value})
        refuses(source, target, "latent_token_id is .* which it cannot be")

    def test_a_plain_model(self, tmp_path: Path, target: Path) -> None:
        write_published(tmp_path / "source", config=dict.fromkeys(("latent_token_id", "latent_start_id")))
        write_small_files(tmp_path / "source", with_latents=False)
        refuses(tmp_path / "source", target, "latent_token_id is not in config.json, nor .* is it ILVR's")


class TestBase:
    @pytest.fixture
    def base(self, tmp_path: Path) -> Path:
        (tmp_path / "base").mkdir()
        write_small_files(tmp_path / "base", with_latents=False)
        write_json(tmp_path / "base" / "generation_config.json", {"do_sample": True})
        return tmp_path / "base"

    def test_the_tokenizer_of_the_base_gets_the_latent_tokens(self, source: Path, target: Path, base: Path) -> None:
        for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
            (source / name).unlink()
        done = convert(source, target, Options(base=base), created_by=CREATED_BY)
        assert "the latent tokens were added" in done.plan.notes[0]
        tokenizer = AutoTokenizer.from_pretrained(target)
        for token in ("<|latent_pad|>", "<|latent_start|>", "<|latent_end|>", "<|im_end|>"):
            assert tokenizer.convert_tokens_to_ids(token) == IDS[token]
        text = "ab<|latent_start|><|latent_pad|><|latent_end|>c"
        assert tokenizer(text).input_ids == [0, 1, 48, 47, 49, 2]
        # How to sample is the checkpoint's own affair.
        assert not (target / "generation_config.json").exists()

    def test_a_base_whose_next_ids_are_others(self, source: Path, target: Path, base: Path) -> None:
        tokenizer = read(base / "tokenizer.json")
        del tokenizer["added_tokens"][-1]
        write_json(base / "tokenizer.json", tokenizer)
        (source / "tokenizer.json").unlink()
        refuses(source, target, "would give them the ids 46, 47, 48 and not 47, 48, 49", base=base)

    @pytest.mark.parametrize("name", ["tokenizer.json", "preprocessor_config.json"])
    def test_without_it(self, name: str, source: Path, target: Path, base: Path) -> None:
        (source / name).unlink()
        refuses(source, target, f"{name} is missing; .* --base DIR")
        convert(source, target, Options(base=base), created_by=CREATED_BY)
        assert (target / name).exists()

    def test_no_chat_template(self, source: Path, tmp_path: Path, target: Path, base: Path) -> None:
        (source / "chat_template.json").unlink()
        refuses(source, target, "no chat template")
        convert(source, target, Options(base=base), created_by=CREATED_BY)
        assert (target / "chat_template.json").read_bytes() == (base / "chat_template.json").read_bytes()
        write_json(source / "tokenizer_config.json", {**read(source / "tokenizer_config.json"), "chat_template": "x"})
        convert(source, tmp_path / "other", Options(), created_by=CREATED_BY)
        assert not (tmp_path / "other" / "chat_template.json").exists()


class RunsCode:
    """Pickled, it asks for a function to be called with an argument."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def refuses(source: Path, target: Path, message: str, kind: type[IlvrError] = BadCheckpoint, **options: Any) -> None:
    """One line, and nothing left where the checkpoint would have been."""
    with pytest.raises(kind, match=message) as caught:
        convert(source, target, Options(**options), created_by=CREATED_BY)
    assert "\n" not in str(caught.value)
    assert not target.parent.exists() or list(target.parent.iterdir()) == []


class TestWrongSource:
    def test_no_folder(self, tmp_path: Path, target: Path) -> None:
        refuses(tmp_path / "none", target, "is not a folder", InvalidRequest)

    def test_another_model(self, source: Path, target: Path) -> None:
        write_json(source / "config.json", {"model_type": "llama"})
        refuses(source, target, "model_type is 'llama'")

    def test_a_config_that_makes_no_sense(self, source: Path, target: Path) -> None:
        write_json(source / "config.json", {**read(source / "config.json"), "hidden_size": "a"})
        refuses(source, target, "no model can be built from config.json")

    def test_a_missing_shard(self, source: Path, target: Path) -> None:
        (source / SECOND).unlink()
        refuses(source, target, f"{SECOND} is missing, which {INDEX} names")

    def test_no_index(self, source: Path, target: Path) -> None:
        (source / INDEX).unlink()
        refuses(source, target, f"there is {FIRST}, but no index")

    def test_no_weights(self, source: Path, target: Path) -> None:
        for path in [*source.glob("*.bin"), source / INDEX]:
            path.unlink()
        refuses(source, target, "no weight file at all")

    @pytest.mark.parametrize("content", [{}, {"weight_map": []}, {"weight_map": {}}])
    def test_an_index_without_a_map(self, content: Any, source: Path, target: Path) -> None:
        write_json(source / INDEX, content)
        refuses(source, target, "has no weight_map")

    @pytest.mark.parametrize("named", ["../other.bin", 5, ""])
    def test_an_index_that_leads_elsewhere(self, named: Any, source: Path, target: Path) -> None:
        write_json(source / INDEX, {"weight_map": {HEAD: named}})
        refuses(source, target, "no name of a file in the same folder")

    def test_a_tensor_that_is_not_where_the_index_says(self, source: Path, target: Path) -> None:
        weights = torch.load(source / FIRST)
        name, _ = weights.popitem()
        torch.save(weights, source / FIRST)
        refuses(source, target, f"{FIRST} does not hold {name}")

    def test_a_tensor_in_two_shards(self, source: Path, target: Path) -> None:
        name, tensor = next(iter(torch.load(source / FIRST).items()))
        torch.save({**torch.load(source / SECOND), name: tensor}, source / SECOND)
        refuses(source, target, f"{name} is in both {FIRST} and {SECOND}")

    def test_a_tensor_too_many(self, source: Path, target: Path) -> None:
        torch.save({**torch.load(source / FIRST), "module.extra": torch.ones(2)}, source / FIRST)
        refuses(source, target, "1 tensors belong to no part of the model: module.extra")

    def test_a_tensor_of_another_shape(self, source: Path, target: Path) -> None:
        weights = torch.load(source / FIRST)
        torch.save({**weights, "visual.blocks.0.norm1.weight": torch.ones(31)}, source / FIRST)
        refuses(source, target, r"blocks.0.norm1.weight \(31,\) instead of \(32,\)")

    def test_whole_numbers_for_weights(self, source: Path, target: Path) -> None:
        weights = torch.load(source / FIRST)
        whole = torch.ones(32, dtype=torch.int8)
        torch.save({**weights, "visual.blocks.0.norm1.weight": whole}, source / FIRST)
        refuses(source, target, "is torch.int8; weights are floating point")

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), 3.4e38])
    def test_values_that_are_not_finite(self, value: float, source: Path, target: Path) -> None:
        """3.4e38 is finite in float32 and not in bf16."""
        weights = torch.load(source / FIRST)
        weights["visual.blocks.0.norm1.weight"] = torch.tensor([*[1.0] * 31, value])
        torch.save(weights, source / FIRST)
        refuses(source, target, f"{FIRST}: visual.blocks.0.norm1.weight holds values that are not finite")


class TestDamagedFile:
    @pytest.mark.parametrize("kept", [0, 100, -1, -5000])
    def test_cut_short(self, kept: int, source: Path, target: Path) -> None:
        data = (source / SECOND).read_bytes()
        (source / SECOND).write_bytes(data[:kept])
        refuses(source, target, f"{SECOND} (is not a complete PyTorch file|cannot be read)")

    def test_a_pointer(self, source: Path, target: Path) -> None:
        (source / SECOND).write_text("version https://git-lfs.github.com/spec/v1\n")
        refuses(source, target, f"{SECOND} .*Git LFS pointer")

    def test_saved_by_an_old_pytorch(self, source: Path, target: Path) -> None:
        torch.save(torch.load(source / SECOND), source / SECOND, _use_new_zipfile_serialization=False)
        refuses(source, target, f"{SECOND} .* before 1.6")

    def test_one_byte_of_a_value(self, source: Path, target: Path) -> None:
        """Mapping would read it without a word; the checksum in the file tells."""
        path = source / SECOND
        data = bytearray(path.read_bytes())
        with zipfile.ZipFile(path) as opened:
            largest = max(opened.infolist(), key=lambda member: member.file_size)
        data[largest.header_offset + largest.file_size // 2] ^= 1
        path.write_bytes(data)
        refuses(source, target, f"{SECOND} is damaged: the checksum")

    def test_code_is_not_run(self, source: Path, tmp_path: Path, target: Path) -> None:
        weights = torch.load(source / FIRST)
        torch.save({**weights, "extra": RunsCode(tmp_path / "ran")}, source / FIRST)
        refuses(source, target, rf"{FIRST} asks for posix.mkdir when it is loaded; .* not loaded")
        assert not (tmp_path / "ran").exists()

    @pytest.mark.parametrize("content", [[torch.ones(2)], {"model": {"a": torch.ones(2)}}, {1: torch.ones(2)}])
    def test_no_tensors_by_name(self, content: Any, source: Path, target: Path) -> None:
        torch.save(content, source / FIRST)
        refuses(source, target, f"{FIRST} holds .* expected tensors by name")

    @pytest.mark.parametrize("kept", [4, 100, -1])
    def test_a_safetensors_file_cut_short(self, kept: int, tmp_path: Path, target: Path) -> None:
        write_published(tmp_path / "source", layout="safetensors")
        path = tmp_path / "source" / "model.safetensors"
        path.write_bytes(path.read_bytes()[:kept])
        refuses(tmp_path / "source", target, "model.safetensors is not a complete safetensors file")


class Stopped(BaseException):
    """As ``KeyboardInterrupt``, no ``Exception``."""


class TestInterrupted:
    @pytest.mark.parametrize("error", [KeyboardInterrupt, Stopped])
    @pytest.mark.parametrize("at", ["checking " + SECOND, "writing model-00002", "verifying model-00002"])
    def test_nothing_is_left(self, at: str, error: type[BaseException], source: Path, target: Path) -> None:
        def stop(progress: Progress) -> None:
            assert not target.exists()
            if progress.what.startswith(at):
                raise error

        with pytest.raises(error):
            convert(source, target, Options(max_shard_bytes=40_000), created_by={}, on_progress=stop)
        assert list(target.parent.iterdir()) == []

    def test_a_folder_is_no_checkpoint_until_its_weights_are_complete(self, source: Path, target: Path) -> None:
        def look(progress: Progress) -> None:
            (folder,) = target.parent.iterdir()
            assert folder.name == f"target.partial-{os.getpid()}"
            assert not (folder / "config.json").exists()
            assert not (folder / "ilvr.json").exists()

        convert(source, target, Options(max_shard_bytes=40_000), created_by={}, on_progress=look)
        assert list(target.parent.iterdir()) == [target]

    def test_the_caller_is_not_content(self, source: Path, target: Path) -> None:
        def check(folder: Path) -> None:
            assert (folder / "ilvr.json").exists()
            raise BadCheckpoint("no")

        with pytest.raises(BadCheckpoint, match="no"):
            convert(source, target, Options(), created_by={}, check=check)
        assert list(target.parent.iterdir()) == []

    def test_what_a_killed_run_left_is_replaced(self, source: Path, target: Path) -> None:
        stale = target.parent / "target.partial-1"
        stale.mkdir(parents=True)
        (stale / "model.safetensors").write_bytes(b"half")
        others = [target.parent / name for name in ("target.partial-notes", "target2.partial-1")]
        for other in others:
            other.mkdir()
        convert(source, target, Options(), created_by={})
        assert set(target.parent.iterdir()) == {target, *others}

    def test_another_run_that_writes_now_is_left_alone(self, source: Path, target: Path) -> None:
        running = target.parent / "target.partial-1"
        running.mkdir(parents=True)
        lock = os.open(running, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with pytest.raises(InvalidRequest, match="another process is writing"):
                convert(source, target, Options(), created_by={})
        finally:
            os.close(lock)
        assert list(target.parent.iterdir()) == [running]


class TestTarget:
    @pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: path.symlink_to("nowhere")])
    def test_one_that_exists(self, make: Any, source: Path, tmp_path: Path) -> None:
        make(tmp_path / "target")
        with pytest.raises(InvalidRequest, match="exists and is not overwritten"):
            convert(source, tmp_path / "target", Options(), created_by={})
        assert {path.name for path in tmp_path.iterdir()} == {"source", "target"}

    def test_one_that_comes_into_being_meanwhile(self, source: Path, target: Path) -> None:
        with pytest.raises(InvalidRequest, match="exists and is not overwritten"):
            convert(source, target, Options(), created_by={}, check=lambda _: target.mkdir())
        assert list(target.parent.iterdir()) == [target]
        assert list(target.iterdir()) == []

    def test_no_room(self, source: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        usage = namedtuple("usage", "total used free")
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 10**12, 1000))
        refuses(source, target, "has 0.0 GB free, the checkpoint needs 0.1 GB", InvalidRequest)

    def test_below_a_file(self, source: Path, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(InvalidRequest, match="nothing was converted"):
            convert(source, tmp_path / "file" / "target", Options(), created_by={})


class TestVerification:
    """What was written is read again: each of these would otherwise be served."""

    def spoiled(self, source: Path, target: Path, monkeypatch: pytest.MonkeyPatch, spoil: Any, message: str) -> None:
        def write_and_spoil(path: Path, *args: Any) -> str:
            digest = write(path, *args)
            spoil(path)
            return digest

        write = conversion.write_shard
        monkeypatch.setattr(conversion, "write_shard", write_and_spoil)
        refuses(source, target, message)

    def test_a_flipped_bit(self, source: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def spoil(path: Path) -> None:
            data = bytearray(path.read_bytes())
            data[-1] ^= 0x80
            path.write_bytes(data)

        self.spoiled(source, target, monkeypatch, spoil, f"{HEAD} differs from what was written")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda held: held.pop(HEAD), "holds other tensors"),
            (lambda held: held.update({HEAD: held[HEAD].half()}), "came back as torch.float16"),
            (lambda held: held.update({HEAD: held[HEAD][1:].clone()}), r"came back as torch.bfloat16 \(49, 64\)"),
            (lambda held: held.update({HEAD: held[HEAD].roll(1, 0)}), "differs from what was written"),
        ],
    )
    def test_another_tensor(
        self, change: Any, message: str, source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def spoil(path: Path) -> None:
            held = {name: tensor.clone() for name, tensor in load_file(path).items()}
            change(held)
            save(path, held)

        self.spoiled(source, target, monkeypatch, spoil, message)


def test_a_file_is_mapped_anew_after_some_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that pages of a single large file do not pile up; the values are the same."""
    from training.convert import source as module

    weights = write_published(tmp_path / "source", layout="bin")
    opened: list[Path] = []
    map_file = module._map
    monkeypatch.setattr(module, "_map", lambda path: [opened.append(path), map_file(path)][1])
    monkeypatch.setattr(module, "MAPPED_LIMIT_BYTES", 20_000)
    source = Source(tmp_path / "source")
    assert all(torch.equal(source.tensor(name), tensor) for name, tensor in weights.items())
    assert len(opened) > 5
