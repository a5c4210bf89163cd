"""How much memory training takes on each of N GPUs, by formulas. Nothing here is measured.

Letters: T tokens of the longest sample, H hidden size, I size of the MLP, V keys and values of a token in a layer, L
layers. Bytes throughout.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn
from transformers import Qwen2_5_VLTextConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLDecoderLayer

from training.lesson import Lesson
from training.recipes import StageRecipe

FLOAT32, BF16 = 4, 2
ADAM_STATES = 2
# Labels that a long sample is taken to have: the answer, not the prompt. Logits are computed for these only.
LABELS = 1024
# Logits in the precision of the model and in float32, and the gradients of both.
BYTES_OF_A_LOGIT = 2 * (BF16 + FLOAT32)


@dataclass(frozen=True, slots=True)
class Unit:
    """Parameters that are gathered together."""

    name: str
    count: int
    num_parameters: int
    part: int  # of one rank: the largest

    @property
    def whole_bytes(self) -> int:
        return self.num_parameters * BF16


def sharding_plan(lesson: Lesson, num_ranks: int) -> list[Unit]:
    """Units as ``fsdp2.yaml`` makes them: each decoder layer, of student and teacher, and the rest by itself."""
    owned: set[int] = set()
    units = []
    for name, model in (("student", lesson.objective.model), ("teacher", lesson.teacher)):
        layers = [one for one in model.modules() if isinstance(one, Qwen2_5_VLDecoderLayer)] if model else []
        if layers:
            owned |= {id(parameter) for layer in layers for parameter in layer.parameters()}
            units.append(_unit(f"decoder layer of the {name}", len(layers), layers[0].parameters(), num_ranks))
    rest = [parameter for parameter in lesson.parameters() if id(parameter) not in owned]
    return [*units, _unit("embedding, final norm and head", 1, rest, num_ranks)]


def memory_estimate(
    lesson: Lesson, tower: nn.Module | None, recipe: StageRecipe, config: Qwen2_5_VLTextConfig, num_ranks: int
) -> dict[str, int]:
    """Bytes on one GPU, by what they are for."""
    plan = sharding_plan(lesson, num_ranks)
    trained = [parameter for parameter in lesson.parameters() if parameter.requires_grad]
    teacher = list(lesson.teacher.parameters()) if lesson.teacher else []
    student_part = _part(lesson.objective.parameters(), num_ranks)
    part = _part(trained, num_ranks)
    layer, root = plan[0], plan[-1]
    return {
        "parameters, float32, this rank's part": student_part * FLOAT32,
        "gradients, float32, its part": part * FLOAT32,
        "AdamW's two moments, float32, its part": ADAM_STATES * part * FLOAT32,
        "AdamW's temporaries during the step, about one part": part * FLOAT32,
        "EMA teacher, float32, its part": _part(teacher, num_ranks) * FLOAT32,
        "frozen tower, bf16, whole": sum(one.numel() for one in tower.parameters()) * BF16 if tower else 0,
        # The root stays gathered through the step; of layers, one in use and one on its way, or all of them.
        "gathered parameters, bf16": root.whole_bytes + _gathered_layers(recipe, layer) * layer.whole_bytes,
        "gradients before the ranks sum them, bf16 and in part float32": _whole_gradients(lesson, recipe),
        "activations kept between layers": _kept(recipe, config),
        "activations of the layer that is recomputed": _recomputed(recipe, config),
        f"logits and their gradients at {LABELS} labels": LABELS * config.vocab_size * BYTES_OF_A_LOGIT,
    }


def _gathered_layers(recipe: StageRecipe, layer: Unit) -> int:
    return 2 if recipe.stage == "stage1" else layer.count


def _whole_gradients(lesson: Lesson, recipe: StageRecipe) -> int:
    """Of the root and of one layer; in stage 2 of all layers, whose gradients are whole only when the backward pass has
    come to the first round. What is being summed is in float32 besides."""
    trained = [one for one in lesson.objective.parameters() if one.requires_grad]
    layers = [one for one in lesson.objective.modules() if isinstance(one, Qwen2_5_VLDecoderLayer)]
    in_layer = sum(one.numel() for one in layers[0].parameters() if one.requires_grad)
    in_root = sum(one.numel() for one in trained) - in_layer * len(layers)
    waiting = in_root + in_layer * (1 if recipe.stage == "stage1" else len(layers))
    return waiting * BF16 + (in_root + in_layer) * FLOAT32


def _kept(recipe: StageRecipe, config: Qwen2_5_VLTextConfig) -> int:
    """B T H a layer, and in stage 2 its keys and values, if activations are recomputed; else all of every layer."""
    tokens = recipe.batch_size * recipe.max_length
    per_token = config.hidden_size + (2 * _keys(config) if recipe.stage == "stage2" else 0)
    if not recipe.gradient_checkpointing:
        return config.num_hidden_layers * _recomputed(recipe, config)
    return config.num_hidden_layers * tokens * per_token * BF16


def _recomputed(recipe: StageRecipe, config: Qwen2_5_VLTextConfig) -> int:
    """B T (8 H + 2 V + 4 I): two norms with their float32 copies, q, attention, o and the sum; keys and values; gate,
    its activation, up and their product."""
    per_token = 8 * config.hidden_size + 2 * _keys(config) + 4 * config.intermediate_size
    return recipe.batch_size * recipe.max_length * per_token * BF16


def _keys(config: Qwen2_5_VLTextConfig) -> int:
    """V."""
    num_heads = config.num_key_value_heads or config.num_attention_heads
    return num_heads * config.hidden_size // config.num_attention_heads


def _unit(name: str, count: int, parameters: Iterable[nn.Parameter], num_ranks: int) -> Unit:
    found = list(parameters)
    return Unit(name, count, sum(one.numel() for one in found), _part(found, num_ranks))


def _part(parameters: Iterable[nn.Parameter], num_ranks: int) -> int:
    """Numbers on the first rank: FSDP2 cuts each parameter along its first axis, in equal parts but for the last."""
    return sum(math.ceil(len(one) / num_ranks) * (one.numel() // len(one)) for one in parameters)
