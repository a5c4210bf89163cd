"""The published layout of the 7B model, and estimates whose sums can be made by hand."""

from dataclasses import replace

import pytest

from contracts.errors import BadCheckpoint
from training.dry_run import dry_run
from training.frozen_tower import FrozenTower
from training.lesson import Lesson
from training.memory_estimate import memory_estimate
from training.published_layout import build_on_meta, check_layout, published_shapes
from training.recipes import StageRecipe, comt_7b_paper, comt_7b_released
from training.teacher import SelectionSettings

# Of Qwen2.5-VL-7B-Instruct on the hub: its weights are 16,584,333,312 bytes of bf16, 676,550,144 numbers the tower.
NUM_TENSORS, NUM_BYTES, NUM_IN_TOWER = 729, 16_584_333_312, 676_550_144
# The language model once its embedding and head are cut from 152,064 to 151,668 rows of 3,584.
NUM_TRAINED = NUM_BYTES // 2 - NUM_IN_TOWER - 2 * (152_064 - 151_668) * 3584


def numbers(shapes: dict[str, tuple[int, ...]]) -> dict[str, int]:
    found = {}
    for name, shape in shapes.items():
        found[name] = 1
        for size in shape:
            found[name] *= size
    return found


def test_the_list_is_the_published_one() -> None:
    sizes = numbers(published_shapes())
    assert len(sizes) == NUM_TENSORS
    assert 2 * sum(sizes.values()) == NUM_BYTES
    assert sum(size for name, size in sizes.items() if name.startswith("visual.")) == NUM_IN_TOWER


def test_the_published_checkpoint_has_the_size_of_a_cut_vocabulary() -> None:
    """shuai22/comt_ckpt: about 31.8 GB, the language model in float32 and the tower in bf16."""
    sizes = numbers(published_shapes(151_668))
    num_bytes = sum(size * (2 if name.startswith("visual.") else 4) for name, size in sizes.items())
    assert num_bytes == 4 * NUM_TRAINED + 2 * NUM_IN_TOWER
    assert round(num_bytes / 1e9, 1) == 31.8


def test_any_difference_from_the_layout_is_found() -> None:
    model = build_on_meta("sdpa")
    shapes = published_shapes()
    check_layout(model, shapes)
    for changed, told in (
        ({**shapes, "model.norm.bias": (3584,)}, "1 parameters are missing: model.norm.bias"),
        (
            {name: shape for name, shape in shapes.items() if name != "model.norm.weight"},
            "1 parameters are not published",
        ),
        ({**shapes, "model.norm.weight": (3585,)}, r"another shape than published: model.norm.weight \(3584,\)"),
        (published_shapes(151_668), "2 parameters have another shape"),
    ):
        with pytest.raises(BadCheckpoint, match=told):
            check_layout(model, changed)


def estimate(recipe: StageRecipe, num_gpus: int) -> dict[str, int]:
    model = build_on_meta("sdpa")
    tower = FrozenTower(model).module
    lesson = Lesson(model, recipe, SelectionSettings(latent_size=8, no_text_ids=frozenset(), image_token_id=0))
    return memory_estimate(lesson, tower, recipe, model.config.text_config, num_gpus)


def test_memory_of_one_gpu_by_hand() -> None:
    found = estimate(comt_7b_released("stage1"), 1)
    whole = NUM_BYTES // 2 - NUM_IN_TOWER  # here before the cut
    assert found["parameters, float32, this rank's part"] == 4 * whole
    assert found["gradients, float32, its part"] == 4 * whole
    assert found["AdamW's two moments, float32, its part"] == 8 * whole
    assert found["EMA teacher, float32, its part"] == 0
    assert found["frozen tower, bf16, whole"] == 2 * NUM_IN_TOWER
    assert found["activations kept between layers"] == 28 * 32_768 * 3584 * 2


def test_shards_and_the_teacher_by_hand() -> None:
    """8 ranks: rows of 152,064, 18,944, 3,584 and 512 all divide by 8, so that a part is an eighth."""
    found = estimate(comt_7b_paper("stage1"), 8)
    part = (NUM_BYTES // 2 - NUM_IN_TOWER) // 8
    assert found["parameters, float32, this rank's part"] == 4 * part
    assert found["EMA teacher, float32, its part"] == 4 * part


def test_stage_two_keeps_keys_and_values_and_all_layers() -> None:
    found = estimate(comt_7b_released("stage2"), 8)
    assert found["activations kept between layers"] == 28 * 8192 * (3584 + 2 * 512) * 2
    in_layer, in_root = 233_057_792, 2 * 152_064 * 3584 + 3584
    assert found["gathered parameters, bf16"] == 2 * (28 * in_layer + in_root)


def test_the_report_marks_its_estimates() -> None:
    report = dry_run(comt_7b_released("stage1"), 8)
    assert "729 tensors, all names and shapes as published" in report
    assert "152,064 rows become 151,668" in report
    assert f"{NUM_TRAINED + NUM_IN_TOWER:,}, of which {NUM_TRAINED:,} are trained" in report
    assert "1 x 8 x 8 GPUs = 64 samples a step" in report
    assert "ESTIMATES" in report
    assert report.count("(estimate)") == 3


def test_adapters_of_the_published_rank() -> None:
    """r (in + out) for each projection of 28 layers."""
    in_layer = 32 * ((3584 + 3584) + 2 * (3584 + 512) + (3584 + 3584) + 3 * (3584 + 18944))
    report = dry_run(replace(comt_7b_released("stage1"), lora=True), 8)
    assert f"of which {28 * in_layer:,} are trained (adapters)" in report
