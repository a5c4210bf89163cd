"""A saved stage loads by the stock class, in serving and as the next base, with and without adapters."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from contracts.manifest import read_latent_spec
from model_runner.checkpoint import read_checkpoint
from tests.training.base_folder import Workplace, recipe, workplace
from training import stage_checkpoint


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return workplace(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="module")
def saved(made: Workplace) -> Path:
    return made.run("saved", recipe(epochs=1, learning_rate=1e-2))[0]


def loaded(folder: Path) -> Qwen2_5_VLForConditionalGeneration:
    model, found = Qwen2_5_VLForConditionalGeneration.from_pretrained(  # type: ignore[misc]
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert not found["missing_keys"]
    assert not found["unexpected_keys"]
    assert not found["mismatched_keys"]
    return model  # type: ignore[no-any-return, has-type]


def test_names_are_those_of_the_base(made: Workplace, saved: Path) -> None:
    base, got = load_file(made.base / "model.safetensors"), load_file(saved / "model.safetensors")
    assert {name: tensor.shape for name, tensor in got.items()} == {name: tensor.shape for name, tensor in base.items()}
    assert {"visual.merger.mlp.2.bias", "model.layers.1.self_attn.q_proj.bias", "lm_head.weight"} <= got.keys()


def test_serving_accepts_the_folder(saved: Path) -> None:
    checkpoint = read_checkpoint(saved, is_cpu=True)
    assert checkpoint.spec.size == 8
    assert checkpoint.context_tokens == 4096
    assert read_latent_spec(saved).rule == "fixed"


def test_the_stock_class_loads_what_was_trained(saved: Path) -> None:
    trained = load_file(saved / "state" / "model.safetensors")
    parameters = dict(loaded(saved).named_parameters())
    mine = {name.removeprefix("objective.model."): tensor for name, tensor in trained.items()}
    assert {name for name in parameters if not name.startswith("model.visual.")} == mine.keys()
    assert all(torch.equal(parameters[name], tensor) for name, tensor in mine.items())


def test_the_manifest_says_how_it_was_made(made: Workplace, saved: Path) -> None:
    manifest = json.loads((saved / "ilvr.json").read_text())
    weights = hashlib.sha256((saved / "model.safetensors").read_bytes()).hexdigest()
    assert manifest["sha256"] == {"model.safetensors": weights}
    made_by = manifest["created_by"]
    assert made_by["command"] == "a test"
    assert made_by["step"] == 2
    assert made_by["recipe"]["learning_rate"] == 1e-2
    assert made_by["data_sha256"] == hashlib.sha256(made.data.read_bytes()).hexdigest()


def test_a_stage_is_the_base_of_the_next(made: Workplace, saved: Path, tmp_path: Path) -> None:
    last, heard = made.run(str(tmp_path / "next"), recipe(stage="stage2", epochs=1), model=saved)
    assert heard.notes == []  # no tokens and no rows to add
    assert json.loads((last / "config.json").read_text())["stage"] == "stage2"
    assert json.loads((saved / "config.json").read_text())["stage"] == "stage1"


def test_tokens_that_the_base_lacked_are_in_every_file(tmp_path: Path) -> None:
    made = workplace(tmp_path / "bare", with_latents=False, num_spare_rows=0)
    last, heard = made.run("out", recipe(epochs=1))
    assert heard.notes == [
        "3 of ILVR's tokens were added to the tokenizer",
        "3 embedding rows were added, near the mean of the others",
    ]
    spec = read_checkpoint(last, is_cpu=True).spec
    tokenizer = AutoTokenizer.from_pretrained(last)
    ids = tokenizer.convert_tokens_to_ids(["<|latent_pad|>", "<|latent_start|>", "<|latent_end|>"])
    assert ids == [spec.pad_id, spec.start_id, spec.end_id]
    assert loaded(last).get_input_embeddings().weight.shape[0] == spec.end_id + 1
    added = json.loads((last / "tokenizer_config.json").read_text())["added_tokens_decoder"]
    assert added[str(spec.end_id)]["content"] == "<|latent_end|>"


def test_a_head_that_is_the_embedding_stays_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Also where a run goes on, with the parameter that both are."""
    made = workplace(tmp_path / "tied", is_tied=True)
    whole, _ = made.run("whole", recipe(epochs=1, learning_rate=1e-2))
    made.run("parts", recipe(epochs=1, learning_rate=1e-2), stop_after=1)
    parts, _ = made.run("parts", recipe(epochs=1, learning_rate=1e-2), resume=True)
    assert not caplog.records
    assert (parts / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert "lm_head.weight" not in load_file(whole / "model.safetensors")
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(whole)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert not torch.equal(model.lm_head.weight, loaded(made.base).lm_head.weight)


def test_shards_have_an_index(made: Workplace, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_checkpoint, "MAX_SHARD_BYTES", 100_000)
    last, _ = made.run(str(tmp_path / "out"), recipe(epochs=1, learning_rate=1e-2))
    assert len(list(last.glob("model-*-of-*.safetensors"))) > 2
    read_checkpoint(last, is_cpu=True)
    whole = dict(loaded(saved).named_parameters())
    assert all(torch.equal(tensor, whole[name]) for name, tensor in loaded(last).named_parameters())


def test_adapters_alone_are_trained_and_merged(made: Workplace, tmp_path: Path) -> None:
    """peft's own merge of the saved adapter into the base is the checkpoint that is served."""
    quick: dict[str, Any] = {"lora": True, "lora_rank": 4, "lora_alpha": 8, "learning_rate": 1e-2}
    last, _ = made.run(str(tmp_path / "lora"), recipe(**quick))
    base = loaded(made.base)
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    served = loaded(last).state_dict()
    changed = {name for name, tensor in served.items() if not torch.equal(tensor, before[name])}
    targets = ("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj", "gate_proj")
    layers = [f"model.language_model.layers.{index}." for index in (0, 1)]
    wanted = {
        f"{layer}{'self_attn' if target[1:] == '_proj' else 'mlp'}.{target}.weight"
        for layer in layers
        for target in targets
    }
    assert changed == wanted
    merged = PeftModel.from_pretrained(base, str(last / "adapter")).merge_and_unload().state_dict()
    assert merged.keys() == served.keys()
    for name, tensor in merged.items():
        torch.testing.assert_close(tensor, served[name], rtol=1e-5, atol=1e-6)
    read_checkpoint(last, is_cpu=True)
