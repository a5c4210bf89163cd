"""Targets of a frozen teacher for a whole data set, before training begins.

A frozen teacher is the base model as it stands before the first step: no copy is made, and its pass over the data
happens once, shared out among the processes.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from accelerate.utils import gather_object  # type: ignore[import-untyped]

from training.base_model import BaseModel
from training.batch import collate
from training.frozen_tower import FrozenTower
from training.recipes import StageRecipe
from training.samples import Sample
from training.target_cache import TargetCache, cache_identity, split
from training.teacher import SelectionSettings, targets


def fill_cache(
    folder: Path,
    accelerator: Accelerator,
    base: BaseModel,
    base_sha256: str,
    tower: FrozenTower | None,
    samples: Sequence[Sample],
    recipe: StageRecipe,
    settings: SelectionSettings,
    on_done: Callable[[int, int], None],
) -> tuple[TargetCache, Sequence[str]]:
    """A cache in ``folder`` with the targets of all samples, and their keys. All processes call it.

    Samples are passed one at a time: there is no padding, and a stop loses one of them. The model ends on the CPU.

    tower: None if the model has kept its own. on_done: hears how many are done, and of how many of this process.
    """
    decided_by = {
        "latent_size": recipe.latent_size,
        "top_p": recipe.top_p,
        "grouping": recipe.grouping,
        "selection": recipe.selection,
        "precision": recipe.precision,
        "seed of new rows": recipe.seed if base.num_new_rows else None,
    }
    cache = TargetCache(folder, cache_identity(base_sha256, base.encoder, decided_by))
    mine = range(accelerator.process_index, len(samples), accelerator.num_processes)
    pairs: list[tuple[int, str]] = gather_object([(index, cache.key(samples[index])) for index in mine])
    keys = [key for _, key in sorted(pairs)]
    missing = [index for index in mine if not cache.has(keys[index])]
    if missing:
        model: torch.nn.Module = base.model
        model.to(accelerator.device)
        base.model.train(False)
        for number, index in enumerate(missing, start=1):
            batch = collate([base.encoder.encode(samples[index])], base.encoder.padding_id).to(accelerator.device)
            with torch.no_grad(), accelerator.autocast():
                batch = tower.see(batch) if tower is not None else batch
                found = targets(base.model, batch, settings)
            cache.write(keys[index], split(found)[0])
            on_done(number, len(missing))
        model.to("cpu")  # what shards it moves it layer by layer
    accelerator.wait_for_everyone()
    return cache, keys
