"""What a 7B recipe would need, without weights and data: names and shapes, the sharding plan, memory by estimate."""

from typing import Any

from training.base_model import resize_vocabulary
from training.frozen_tower import FrozenTower
from training.lesson import Lesson
from training.lora import inject_lora
from training.memory_estimate import FLOAT32, memory_estimate, sharding_plan
from training.published_layout import (
    NUM_BASE_TOKENS,
    NUM_TOKENS,
    build_on_meta,
    check_layout,
    published_config,
    published_shapes,
)
from training.recipes import StageRecipe
from training.teacher import SelectionSettings

GIB = 1 << 30


def dry_run(recipe: StageRecipe, num_gpus: int) -> str:
    """The report.

    Raises:
        BadCheckpoint: the model that transformers builds is not the published one.
    """
    attention = "sdpa" if recipe.attention == "flash_attention_2" else recipe.attention  # needs a GPU to be built
    model = build_on_meta(attention)
    published = published_shapes()
    check_layout(model, published)
    resize_vocabulary(model, NUM_TOKENS, recipe.cut_vocabulary, recipe.seed)
    num_rows = model.lm_head.weight.shape[0]
    check_layout(model, published_shapes(num_rows))
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    tower = FrozenTower(model).module if recipe.freeze_tower else None
    if recipe.lora:
        model.requires_grad_(False)
        inject_lora(model.model.language_model, recipe)
    image_token_id: int = published_config()["image_token_id"]
    settings = SelectionSettings(latent_size=recipe.latent_size, no_text_ids=frozenset(), image_token_id=image_token_id)
    lesson = Lesson(model, recipe, settings)
    num_of_teacher = sum(parameter.numel() for parameter in lesson.teacher.parameters()) if lesson.teacher else 0
    num_trained = sum(parameter.numel() for parameter in lesson.parameters() if parameter.requires_grad)
    text_config: Any = model.config.text_config
    memory = memory_estimate(lesson, tower, recipe, text_config, num_gpus)
    saved = num_parameters * (2 if recipe.saved_dtype == "bfloat16" else FLOAT32)
    whole_state = sum(one.numel() for one in lesson.parameters()) * FLOAT32 + 2 * num_trained * FLOAT32
    return "\n".join(
        [
            f"dry run of {recipe.name}, {recipe.stage}, Qwen2.5-VL-7B on {num_gpus} GPUs with FSDP2",
            "Nothing was read, trained or measured: memory and disk are ESTIMATES by formulas.",
            "",
            f"layout      {len(published)} tensors, all names and shapes as published",
            f"vocabulary  {published['lm_head.weight'][0]:,} rows become {num_rows:,}: {NUM_BASE_TOKENS:,} tokens and "
            f"ILVR's {NUM_TOKENS - NUM_BASE_TOKENS}",
            f"parameters  {num_parameters:,}, of which {num_trained:,} are trained"
            + (" (adapters)" if recipe.lora else ""),
            f"batch       {recipe.batch_size} x {recipe.accumulation} x {num_gpus} GPUs = "
            f"{recipe.batch_size * recipe.accumulation * num_gpus} samples a step",
            "",
            *_plan_lines(lesson, num_gpus),
            "",
            f"memory of one GPU at {recipe.max_length:,} tokens (estimate)",
            *(f"  {_gib(size)}  {what}" for what, size in memory.items() if size),
            f"  {_gib(sum(memory.values()))}  total, without fragmentation and the buffers of NCCL",
            "",
            "elsewhere (estimate)",
            f"  {_gib((num_parameters + num_of_teacher) * FLOAT32)}  main memory of each process while it starts",
            *_teacher_lines(recipe, num_parameters),
            f"  {_gib(saved)}  disk: weights to serve, in each checkpoint",
            f"  {_gib(whole_state)}  disk: what --resume goes on from, in each checkpoint",
        ]
    )


def _plan_lines(lesson: Lesson, num_gpus: int) -> list[str]:
    heads = f"{'count':>5} {'parameters of one':>18} {'gathered, bf16':>14} {'part, float32':>14}"
    lines = [f"{'sharding plan (estimate)':34}{heads}"]
    for unit in sharding_plan(lesson, num_gpus):
        sizes = f"{_gib(unit.whole_bytes):>14} {_gib(unit.part * FLOAT32):>14}"
        lines.append(f"  {unit.name:32}{unit.count:5} {unit.num_parameters:18,} {sizes}")
    return lines


def _teacher_lines(recipe: StageRecipe, num_parameters: int) -> list[str]:
    if recipe.stage != "stage1" or recipe.teacher != "frozen":
        return []
    return [f"  {_gib(num_parameters * FLOAT32)}  GPU memory for the frozen teacher's pass, before training begins"]


def _gib(size: int) -> str:
    return f"{size / GIB:8.2f} GiB"
