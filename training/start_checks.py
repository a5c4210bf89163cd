"""What must be so before the first step."""

from collections.abc import Sequence

from contracts.errors import BadSettings, InvalidRequest
from training.checkpoint_folders import CheckpointFolders
from training.recipes import StageRecipe
from training.run import Run
from training.samples import LatentStep, Sample


def check_out(run: Run, folders: CheckpointFolders) -> None:
    """Whether the run's folder, which is made, is its own to write to.

    Raises:
        BadSettings: it holds a run that this one does not go on with, or cannot be made.
    """
    if folders.latest() is not None and not run.resume:
        raise BadSettings(f"{run.out} has checkpoints of a run; go on with --resume, or name another folder")
    try:
        run.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadSettings(f"cannot make the folder {run.out}: {error.strerror}") from error


def check_tower_sees(recipe: StageRecipe, samples: Sequence[Sample], num_processes: int) -> None:
    """Whether each process has an image in each step, if they train the tower together.

    Raises:
        BadSettings: a sample has none.
    """
    if not recipe.freeze_tower and num_processes > 1 and not all(sample.images for sample in samples):
        raise BadSettings("with several processes a tower that is trained needs an image in every sample")


def check_order_is_given(recipe: StageRecipe, samples: Sequence[Sample]) -> None:
    """Whether each latent block says in which order to think, if targets are to be taken from there.

    Raises:
        InvalidRequest: one does not; the first is named.
    """
    if recipe.stage != "stage1" or recipe.selection != "ordered":
        return
    for sample in samples:
        for index, step in enumerate(sample.steps):
            if isinstance(step, LatentStep) and step.target_cells is None:
                raise InvalidRequest(
                    f"{sample.where}: sequence_plan[{index}] has no target_cells, which the recipe's selection "
                    "'ordered' needs; add them, or set selection to 'published'",
                    param=f"sequence_plan[{index}].target_cells",
                )
