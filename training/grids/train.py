"""The schedule of a grid recipe: its phases in turn, under one optimizer and one learning-rate curve.

Everything is counted in optimizer steps, so that a recipe and a seed give the same run on a slow machine and on a fast
one.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from training.configs import GridRecipe, Phase
from training.grids.batches import Form, GridBatch
from training.grids.free_running import Score, watch
from training.grids.mazes import MazeTask
from training.grids.state import GridRun, learning_rate_factor
from training.grids.tasks import GridTask
from training.grids.trails import TrailTask
from training.objective import Stage
from training.teacher import Targets

TASKS: Mapping[str, Callable[[], GridTask]] = {"maze": MazeTask, "trail": TrailTask}
FORMS: Mapping[str, Form] = {
    "direct": "direct",
    "chain": "chain",
    "stage1": "block",
    "sampled": "block",
    "stage2": "block",
}

WATCH_EVERY_STEPS = 250
SAVE_EVERY_STEPS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One optimizer step, as reported. ``scores`` by task and size, now and then; empty otherwise."""

    step: int
    num_steps: int
    phase: str
    loss: float
    learning_rate: float
    cpu_s: float
    scores: Mapping[str, Mapping[int, Score]]


def scaled(recipe: GridRecipe, factor: float) -> GridRecipe:
    """The recipe with all steps times ``factor``: for a look at the whole schedule in a minute."""
    return replace(
        recipe,
        phases=tuple(replace(phase, steps=max(1, round(phase.steps * factor))) for phase in recipe.phases),
        first_steps=round(recipe.first_steps * factor),
        warmup_steps=max(1, round(recipe.warmup_steps * factor)),
        decay_steps=max(1, round(recipe.decay_steps * factor)),
    )


def train(
    recipe: GridRecipe,
    seed: int,
    report: Callable[[Progress], None],
    *,
    state_file: Path | None = None,
    start_from: Path | None = None,
    until_step: int | None = None,
    num_watched: int = 100,
) -> GridRun:
    """Run a recipe from a fresh model, or go on from ``state_file``, or else from ``start_from``.

    state_file: written now and then and at the end. start_from: the state of a run whose steps so far were the same.
    until_step: end there, for others to start from. num_watched: puzzles of each size that are watched.
    """
    tasks = {name: TASKS[name]() for name in recipe.task_weights}
    run = GridRun(recipe, tasks, seed)
    for file in (state_file, start_from):
        if file is not None and file.exists():
            run.load(file)
            break
    last_step = recipe.num_steps if until_step is None else until_step
    while run.step < last_step:
        started_s = time.process_time()
        phase, done = phase_at(recipe, run.step)
        loss = make_step(run, phase, done)
        run.cpu_s += time.process_time() - started_s
        is_watched = run.step % WATCH_EVERY_STEPS == 0 or run.step == recipe.num_steps
        report(
            Progress(
                step=run.step,
                num_steps=recipe.num_steps,
                phase=phase.kind,
                loss=loss,
                learning_rate=run.optimizers[0].param_groups[0]["lr"],
                cpu_s=run.cpu_s,
                scores=watch(run.model, run.batches, recipe.latent_size, num_watched) if is_watched else {},
            )
        )
        if state_file is not None and (run.step % SAVE_EVERY_STEPS == 0 or run.step == last_step):
            run.save(state_file)  # after the report: a step that is saved is never reported again
    return run


def phase_at(recipe: GridRecipe, step: int) -> tuple[Phase, float]:
    """The phase of step ``step``, counted from 0, and the share of its steps that are done."""
    for phase in recipe.phases:
        if step < phase.steps:
            return phase, step / max(1, phase.steps - 1)
        step -= phase.steps
    raise ValueError(f"{recipe.name} has no step {step} after its last")


def make_step(run: GridRun, phase: Phase, done: float) -> float:
    """One optimizer step, with this share of the phase done; its loss."""
    recipe = run.recipe
    if phase.alignment:
        run.teacher = run.teacher or run.make_teacher()
    form = FORMS[phase.kind]
    if form == "block" and run.batches.rng.random() < recipe.direct_share:
        form = "unblocked"
    sizes = recipe.first_size_weights if run.step < recipe.first_steps else recipe.size_weights
    grid = run.batches.draw(recipe.task_weights, sizes, recipe.batch_size, form)
    factor = learning_rate_factor(recipe, run.step)
    for optimizer in run.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["full_lr"] * factor
    first, last = phase.target_shares
    loss = batch_loss(run, grid, phase, first + done * (last - first))
    for optimizer in run.optimizers:
        optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(run.parameters, recipe.max_grad_norm)
    for optimizer in run.optimizers:
        optimizer.step()
    if run.teacher is not None and recipe.ema_decay is not None and phase.alignment:
        run.teacher.update(run.model, recipe.ema_decay)
    run.step += 1
    return loss.item()


def batch_loss(run: GridRun, grid: GridBatch, phase: Phase, target_share: float = 0.0) -> Tensor:
    """The loss of a phase on a batch, with the losses on cells."""
    targets: Targets | None = None
    stage: Stage = "stage2"  # without blocks there is nothing to feed back, and stage 2 is plain cross entropy
    if any(grid.batch.blocks):
        stage = phase.kind if phase.kind in ("stage1", "sampled") else "stage2"
        targets = run.teacher.targets(grid.batch) if phase.alignment and run.teacher is not None else None
    losses = run.objective(phase.alignment)(grid.batch, stage, targets, target_share=target_share)
    loss: Tensor = losses.total.mean() + run.recipe.cell_weight * run.classifiers(grid, losses.features_NH)
    return loss
