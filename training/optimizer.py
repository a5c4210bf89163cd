"""The optimizer of a stage and its learning rate."""

import torch

from training.lesson import Lesson
from training.recipes import StageRecipe


def learning_rate(recipe: StageRecipe, step: int, num_steps: int) -> float:
    """Of a step, counted from 0: as ``get_linear_schedule_with_warmup`` of transformers, which begins at 0."""
    if step < recipe.warmup_steps:
        return recipe.learning_rate * step / recipe.warmup_steps
    if recipe.schedule == "constant":
        return recipe.learning_rate
    return recipe.learning_rate * max(0.0, (num_steps - step) / max(1, num_steps - recipe.warmup_steps))


def make_optimizer(lesson: Lesson, recipe: StageRecipe) -> torch.optim.Optimizer:
    """AdamW on what is trained; matrices decay, norms and biases do not."""
    trained = [parameter for parameter in lesson.parameters() if parameter.requires_grad]
    groups = [
        {"params": [one for one in trained if one.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [one for one in trained if one.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=recipe.learning_rate,
        betas=recipe.adam_betas,
        eps=recipe.adam_epsilon,
    )
