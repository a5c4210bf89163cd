"""The state of a grid run between two steps: what a stopped run goes on from, bitwise."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from contracts.errors import BadSettings
from training.configs import GridRecipe
from training.grids.batches import GridBatches
from training.grids.cells import CellClassifiers
from training.grids.tasks import GridTask
from training.grids.text import sentences
from training.objective import Objective, Weights
from training.teacher import SelectionSettings, Teacher
from training.tiny_model import build_model
from training.tiny_tokenizer import build_tokenizer

# What steps without latents do not depend on.
UNUSED_BEFORE_ALIGNMENT = (
    "selection",
    "are_targets_scaled",
    "ema_decay",
    "alignment_noise",
    "top_p",
    "latent_size",
    "latent_exit",
    "direct_share",
)


class GridRun:
    """Everything that a step reads or changes. ``cpu_s``: CPU seconds of all steps so far."""

    def __init__(self, recipe: GridRecipe, tasks: dict[str, GridTask], seed: int) -> None:
        torch.manual_seed(seed)
        self.recipe, self.seed = recipe, seed
        self.tokenizer = build_tokenizer(sentences(), recipe.model.vocab_size)
        self.batches = GridBatches(self.tokenizer, tasks, recipe.latent_size, seed)
        self.model = build_model(recipe.model, self.batches.ids, seed)
        self.classifiers = CellClassifiers(recipe.model.hidden_size, tasks)
        self.parameters = [*self.model.parameters(), *self.classifiers.parameters()]
        self.optimizers = make_optimizers(self.model, self.classifiers, recipe)
        self.teacher: Teacher | None = None
        self.step = 0
        self.cpu_s = 0.0

    def objective(self, alignment: float) -> Objective:
        """The model with its losses."""
        return Objective(self.model, Weights(alignment=alignment, noise_std=self.recipe.alignment_noise))

    def make_teacher(self) -> Teacher:
        """A copy of the model as it is now."""
        ids = self.batches.ids
        settings = SelectionSettings(
            latent_size=self.recipe.latent_size,
            no_text_ids=frozenset(
                (ids.latent_pad, ids.latent_start, ids.latent_end, ids.vision_start, ids.vision_end, ids.image_pad)
            ),
            image_token_id=ids.image_pad,
            top_p=self.recipe.top_p,
            selection=self.recipe.selection,
            is_scaled=self.recipe.are_targets_scaled,
        )
        return Teacher(self.model, settings)

    def save(self, file: Path) -> None:
        """Write the state; a reader finds the old file or the new one, never a part."""
        state = {
            "identity": identity(self.recipe, self.seed, self.step),
            "step": self.step,
            "cpu_s": self.cpu_s,
            "model": self.model.state_dict(),
            "classifiers": self.classifiers.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "teacher": self.teacher and self.teacher.model.state_dict(),
            "torch_rng": torch.get_rng_state(),
            "batches_rng": self.batches.rng.getstate(),
        }
        part = file.with_suffix(f".part{os.getpid()}")
        torch.save(state, part)
        part.replace(file)

    def load(self, file: Path) -> None:
        """Go on from a state that ``save`` wrote for the same recipe and seed up to that step.

        Raises:
            BadSettings: the file cannot be read, or its steps were not those of this recipe and seed.
        """
        try:
            state: dict[str, Any] = torch.load(file, weights_only=True)
            saved = state["identity"]
        except (RuntimeError, OSError, EOFError, KeyError, UnpicklingError) as error:
            raise BadSettings(f"{file} is no state of an unfinished run; delete it to begin anew") from error
        if saved != identity(self.recipe, self.seed, state["step"]):
            raise BadSettings(f"{file} is of another recipe or seed; delete it, or give the ones it was made with")
        self.step, self.cpu_s = state["step"], state["cpu_s"]
        self.model.load_state_dict(state["model"])
        self.classifiers.load_state_dict(state["classifiers"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        if state["teacher"] is not None:
            self.teacher = self.make_teacher()
            self.teacher.model.load_state_dict(state["teacher"])
        torch.set_rng_state(state["torch_rng"])
        version, internal, gauss = state["batches_rng"]
        self.batches.rng.setstate((version, tuple(internal), gauss))


def identity(recipe: GridRecipe, seed: int, num_steps: int) -> str:
    """All that decides the first ``num_steps`` steps, as JSON: runs that differ later only may share them."""
    values = asdict(recipe)
    phases, left = [], num_steps
    for phase in values.pop("phases"):
        if left > 0:
            is_cut = phase["steps"] > left and phase["target_shares"][0] == phase["target_shares"][1]
            phases.append({**phase, "steps": left} if is_cut else phase)
        left -= phase["steps"]
    # After the last of them the rate may fall over other numbers of steps; before it, these are compared.
    rates = [learning_rate_factor(recipe, step) for step in range(num_steps)]
    for name in ("name", "decay_steps", *(UNUSED_BEFORE_ALIGNMENT if not any(p["alignment"] for p in phases) else ())):
        values.pop(name)
    return json.dumps({**values, "phases": phases, "rates": rates, "seed": seed}, sort_keys=True)


def learning_rate_factor(recipe: GridRecipe, step: int) -> float:
    """Of step ``step``, counted from 0: linear warm-up, then 1, then linear to 0 over the last ``decay_steps``."""
    rising = (step + 1) / recipe.warmup_steps
    falling = (recipe.num_steps - step) / recipe.decay_steps
    return min(1.0, rising, falling)


def make_optimizers(
    model: torch.nn.Module, classifiers: torch.nn.Module, recipe: GridRecipe
) -> list[torch.optim.Optimizer]:
    """Muon for the model's matrices but the embedding, which is also the head; AdamW for the rest, where what has two
    axes decays. Each group remembers its full rate as ``full_lr``."""
    named = dict(model.named_parameters())
    muon = [
        parameter
        for name, parameter in named.items()
        if parameter.ndim == 2 and not name.endswith("embed_tokens.weight")
    ]
    taken = {id(parameter) for parameter in muon}
    rest = [parameter for parameter in (*named.values(), *classifiers.parameters()) if id(parameter) not in taken]
    groups = [
        {"params": [parameter for parameter in rest if parameter.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [parameter for parameter in rest if parameter.ndim < 2], "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=recipe.adam_betas, fused=True),
        torch.optim.Muon(muon, lr=recipe.muon_rate, weight_decay=recipe.weight_decay),
    ]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["full_lr"] = group["lr"]
    return optimizers
