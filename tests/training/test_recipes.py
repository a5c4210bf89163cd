"""Recipes against the published settings, and files that change them."""

from dataclasses import asdict, fields
from pathlib import Path

import pytest

from contracts.errors import BadSettings
from training.recipe_files import load_recipe
from training.recipes import RECIPES, Stage, StageRecipe

# The settings of released stage 1 (XD111ds/ILVR, January 2026): main.py, run_training.sh, else defaults of get_args.
RELEASED = {
    "latent_size": 8,
    "teacher": "frozen",
    "grouping": "released",
    "top_p": 0.9,
    "alignment_weight": 1.0,
    "cross_entropy_weight": 1.0,
    "target_noise": 0.01,
    "learning_rate": 1e-5,
    "weight_decay": 0.01,
    "schedule": "linear",
    "warmup_steps": 10,
    "epochs": 15,
    "batch_size": 1,
    "accumulation": 8,
    "max_grad_norm": 1.0,
    "precision": "bf16",
    "gradient_checkpointing": True,
    "freeze_tower": True,
    "lora": False,
    "lora_rank": 32,
    "lora_alpha": 64,
    "lora_dropout": 0.05,
    "lora_targets": ("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj", "gate_proj"),
    "max_length": 32768,
    "seed": 42,
}


@pytest.mark.parametrize("data", ["comt", "zebra", "vsp"])
def test_the_released_recipe_has_the_released_settings(data: str) -> None:
    values = asdict(load_recipe(f"{data}_7b_released", "stage1"))
    assert {key: values[key] for key in RELEASED} == RELEASED


@pytest.mark.parametrize("data", ["comt", "zebra", "vsp"])
def test_the_papers_recipe_differs_in_teacher_and_grouping_only(data: str) -> None:
    paper, released = (asdict(load_recipe(f"{data}_7b_{kind}", "stage1")) for kind in ("paper", "released"))
    changed = {key: value for key, value in paper.items() if value != released[key]}
    assert changed == {"name": f"{data}_7b_paper", "teacher": "ema", "grouping": "whole"}
    assert paper["ema_decay"] == 0.999


def test_stage_two_takes_shorter_sequences() -> None:
    assert load_recipe("comt_7b_released", "stage2").max_length == 8192


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_a_recipe_is_called_by_its_name(name: str, stage: Stage) -> None:
    recipe = load_recipe(name, stage)
    assert (recipe.name, recipe.stage) == (name, stage)


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        ("toml", 'base = "comt_7b_paper"\nlearning_rate = 2\nlora = true\nlora_targets = ["q_proj"]\n'),
        ("json", '{"base": "comt_7b_paper", "learning_rate": 2, "lora": true, "lora_targets": ["q_proj"]}'),
    ],
)
def test_a_file_changes_a_named_recipe(tmp_path: Path, suffix: str, text: str) -> None:
    file = tmp_path / f"mine.{suffix}"
    file.write_text(text)
    recipe = load_recipe(str(file), "stage1")
    base = RECIPES["comt_7b_paper"]("stage1")
    changed = {one.name for one in fields(StageRecipe) if getattr(recipe, one.name) != getattr(base, one.name)}
    assert changed == {"name", "learning_rate", "lora", "lora_targets"}
    assert (recipe.name, recipe.learning_rate, recipe.lora_targets) == ("mine", 2.0, ("q_proj",))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("learning_rat = 1e-5", r"unknown key 'learning_rat'; did you mean learning_rate\?"),
        ('stage = "stage2"', "unknown key 'stage'"),
        ('learning_rate = "fast"', "learning_rate must be a number, found 'fast'"),
        ("epochs = 1.5", "epochs must be a whole number, found 1.5"),
        ("epochs = true", "epochs must be a whole number, found True"),
        ("epochs = 0", "epochs must be greater than 0"),
        ("learning_rate = nan", "learning_rate must be greater than 0"),
        ("warmup_steps = -1", "warmup_steps must not be negative"),
        ("ema_decay = 1.0", "ema_decay must be at least 0 and below 1"),
        ("ema_decay = -0.1", "ema_decay must be at least 0 and below 1"),
        ("lora_dropout = 1.0", "lora_dropout must be at least 0 and below 1"),
        ("lora_dropout = -0.1", "lora_dropout must be at least 0 and below 1"),
        ("adam_betas = [0.9, 1]", r"adam_betas must be at least 0 and below 1, found \[0.9, 1.0\]"),
        ("adam_betas = [-0.5, 0.9]", "adam_betas must be at least 0 and below 1"),
        ("adam_betas = [nan, 0.9]", "adam_betas must be at least 0 and below 1"),
        ("adam_epsilon = 0", "adam_epsilon must be greater than 0"),
        ("cross_entropy_weight = -1", "cross_entropy_weight must not be negative"),
        ("alignment_weight = -0.5", "alignment_weight must not be negative"),
        ("learning_rate = inf", "learning_rate must be a number, found inf"),
        ("lora_alpha = 0", "lora_alpha must be greater than 0"),
        ("lora_targets = []", "lora_targets must be some of q_proj, .*; found none"),
        ('lora_targets = ["q_proj", "q_pro"]', r"found 'q_pro'; did you mean q_proj\?"),
        ('teacher = "none"', "teacher must be 'ema' or 'frozen', found 'none'"),
        ("lora_targets = [1]", "lora_targets must be a list, each text"),
        ("adam_betas = [0.9]", r"adam_betas must be a list, each a number, found \[0.9\]"),
        ("lora = ", "not TOML that can be read"),
    ],
)
def test_a_wrong_file_is_told_in_one_line(tmp_path: Path, line: str, told: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(f'base = "tiny_paper"\n{line}\n')
    with pytest.raises(BadSettings, match=told) as caught:
        load_recipe(str(file), "stage1")
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_whole_numbers_may_stand_for_others_in_a_list_too(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('base = "tiny_paper"\nadam_betas = [0, 0.5]\nweight_decay = 0\n')
    recipe = load_recipe(str(file), "stage1")
    assert (recipe.adam_betas, recipe.weight_decay) == ((0.0, 0.5), 0.0)
    assert {type(one) for one in (*recipe.adam_betas, recipe.weight_decay)} == {float}


def test_a_file_needs_a_base(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text('{"epochs": 3}')
    with pytest.raises(BadSettings, match="base must name a recipe"):
        load_recipe(str(file), "stage1")


@pytest.mark.parametrize("name", ["comt_7b_relased", "nothing.toml"])
def test_what_is_not_there_is_told(name: str) -> None:
    with pytest.raises(BadSettings, match=r"did you mean comt_7b_released\?|No such file"):
        load_recipe(name, "stage1")


def test_flash_attention_takes_one_sample_in_stage_two(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('base = "tiny_paper"\nattention = "flash_attention_2"\n')
    with pytest.raises(BadSettings, match="needs batch_size 1"):
        load_recipe(str(file), "stage2")
    assert load_recipe(str(file), "stage1").attention == "flash_attention_2"
