"""The schedule of a maze recipe: direct answers, then aligned latents (stage 1), then self-fed latents (stage 2).

One optimizer and one learning-rate schedule run through all phases. Everything is counted in optimizer steps, so that a
recipe and a seed give the same run on a slow machine and on a fast one.
"""

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Literal

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from training.configs import Recipe
from training.free_running import Score, watch
from training.maze_data import MazeBatch, MazeBatches, TilePixels
from training.maze_losses import MazeLosses
from training.maze_text import sentences
from training.tiny_model import build_model
from training.tiny_tokenizer import build_tokenizer

Phase = Literal["direct", "stage1", "stage2"]

WATCH_EVERY_STEPS = 250
WATCH_MAZES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One optimizer step, as reported. ``scores`` per size, now and then; empty otherwise."""

    step: int
    num_steps: int
    phase: Phase
    loss: float
    learning_rate: float
    cpu_s: float
    scores: Mapping[int, Score]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedMaze:
    """What a run leaves: the model, its tokenizer and what it took."""

    model: Qwen2_5_VLForConditionalGeneration
    tokenizer: Tokenizer
    recipe: Recipe
    seed: int
    cpu_s: float


def scaled(recipe: Recipe, factor: float) -> Recipe:
    """The recipe with every phase's steps times ``factor``: for a look at the whole schedule in a minute."""
    return replace(
        recipe,
        first_steps=round(recipe.first_steps * factor),
        direct_steps=max(1, round(recipe.direct_steps * factor)),
        stage1_steps=max(1, round(recipe.stage1_steps * factor)),
        stage2_steps=max(1, round(recipe.stage2_steps * factor)),
        warmup_steps=max(1, round(recipe.warmup_steps * factor)),
    )


def learning_rate_factor(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then 1, then linear to 0 over the last ``decay_share`` of all steps."""
    num_steps = recipe.direct_steps + recipe.stage1_steps + recipe.stage2_steps
    rising = (step + 1) / recipe.warmup_steps
    falling = (num_steps - step) / (recipe.decay_share * num_steps)
    return min(1.0, rising, falling)


def train(recipe: Recipe, seed: int, report: Callable[[Progress], None]) -> TrainedMaze:
    """Run a recipe from a fresh model. Seconds are CPU seconds of this process."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer(sentences(), recipe.model.vocab_size)
    batches = MazeBatches(tokenizer, TilePixels(), recipe, seed)
    model = build_model(recipe.model, batches.ids, seed)
    losses = MazeLosses(model, batches.pixels.table_TPX, batches.ids, recipe)
    parameters = [*model.parameters(), *losses.cell_head.parameters()]
    optimizer = make_optimizer(parameters, recipe)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(recipe, step))
    teacher: Qwen2_5_VLForConditionalGeneration | None = None
    num_steps = recipe.direct_steps + recipe.stage1_steps + recipe.stage2_steps
    started_s = time.process_time()
    for step, phase in enumerate(_phases(recipe), start=1):
        if phase == "stage1" and teacher is None:
            # Frozen for the whole stage: the released recipe (its EMA hook is never called).
            teacher = copy.deepcopy(model).requires_grad_(False)
        batch = batches.draw(recipe.first_size_weights if step <= recipe.first_steps else recipe.size_weights)
        skips_block = phase != "direct" and batches.rng.random() < recipe.direct_share
        loss = phase_loss(losses, batch, "direct" if skips_block else phase, teacher, recipe)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, recipe.max_grad_norm)
        optimizer.step()
        scheduler.step()
        is_watched = step % WATCH_EVERY_STEPS == 0 or step == num_steps
        report(
            Progress(
                step=step,
                num_steps=num_steps,
                phase=phase,
                loss=loss.item(),
                learning_rate=float(scheduler.get_last_lr()[0]),
                cpu_s=time.process_time() - started_s,
                scores=watch(model, batches, recipe.latent_size, WATCH_MAZES) if is_watched else {},
            )
        )
    cpu_s = time.process_time() - started_s
    return TrainedMaze(model=model, tokenizer=tokenizer, recipe=recipe, seed=seed, cpu_s=cpu_s)


def phase_loss(
    losses: MazeLosses,
    batch: MazeBatch,
    phase: Phase,
    teacher: Qwen2_5_VLForConditionalGeneration | None,
    recipe: Recipe,
) -> Tensor:
    """The loss of a phase: cross entropy and cell losses, in stage 1 also L_sim, which needs a teacher."""
    features = losses.features(batch)
    loss = recipe.cell_weight * losses.cells(batch, features)
    if phase == "direct":
        return loss + losses.direct(batch, features)
    if phase == "stage2":
        return loss + losses.stage2(batch, features)
    if teacher is None:
        raise ValueError("stage 1 needs a teacher")
    cross_entropy, similarity = losses.stage1(batch, features, teacher)
    return loss + cross_entropy + recipe.alignment_weight * similarity


def make_optimizer(parameters: Sequence[torch.nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW; matrices decay, norms and biases do not."""
    matrices = [parameter for parameter in parameters if parameter.ndim >= 2]
    vectors = [parameter for parameter in parameters if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=recipe.adam_betas, fused=True)


def _phases(recipe: Recipe) -> Iterator[Phase]:
    yield from repeat("direct", recipe.direct_steps)
    yield from repeat("stage1", recipe.stage1_steps)
    yield from repeat("stage2", recipe.stage2_steps)
