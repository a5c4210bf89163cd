"""An exported folder loads again by the stock classes, with the same weights, names and tokens."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoTokenizer

from contracts.manifest import read_latent_spec
from tests.training.conftest import Setup
from training.checkpoint import export


@pytest.fixture(scope="module")
def folder(setup: Setup, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    export(setup.run, folder, {"command": "a test"})
    return folder


def test_weights_come_back_under_the_stock_class(setup: Setup, folder: Path) -> None:
    loaded, info = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    ours, theirs = setup.model.state_dict(), loaded.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    rotary, loaded_rotary = setup.model.model.language_model.rotary_emb, loaded.model.language_model.rotary_emb
    assert torch.equal(rotary.inv_freq, loaded_rotary.inv_freq)


def test_names_and_config_are_the_published_ones(folder: Path) -> None:
    golden = Path(__file__).parents[1] / "golden" / "ckpt-b-config" / "config.json"
    published, ours = json.loads(golden.read_text()), json.loads((folder / "config.json").read_text())
    # The golden checkpoints carry two keys of their own that nothing reads.
    assert set(published) - set(ours) <= {"vision_token_id", "compress_strategy"}
    assert set(published["vision_config"]) == set(ours["vision_config"])
    names = set(load_file(folder / "model.safetensors"))
    assert {"visual.patch_embed.proj.weight", "visual.merger.mlp.2.bias", "model.norm.weight"} <= names
    assert {"model.embed_tokens.weight", "model.layers.3.self_attn.q_proj.bias"} <= names
    assert "lm_head.weight" not in names


def test_the_manifest_names_ids_k_and_rule(setup: Setup, folder: Path) -> None:
    spec = read_latent_spec(folder)
    assert (spec.pad_id, spec.start_id, spec.end_id) == (
        setup.ids.latent_pad,
        setup.ids.latent_start,
        setup.ids.latent_end,
    )
    assert (spec.size, spec.rule) == (8, "fixed")


def test_the_chat_template_is_the_layout_that_training_uses(setup: Setup, folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    content = [{"type": "image"}, {"type": "text", "text": "Find a safe path from S to G."}]
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    ids = tokenizer(text)["input_ids"]
    image = ids.index(setup.ids.image_pad)
    assert ids[:image] + [setup.ids.image_pad] * 16 + ids[image + 1 :] == setup.batches.prompt_ids(
        16, "Find a safe path from S to G."
    )


def test_special_tokens_of_a_user_are_plain_text(folder: Path, setup: Setup) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("<|latent_start|><|im_end|>", split_special_tokens=True)["input_ids"]
    assert not set(ids) & {setup.ids.latent_start, setup.ids.im_end}
