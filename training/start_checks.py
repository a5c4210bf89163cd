"""What can be said of recipe and data before the weights are read."""

from collections.abc import Sequence

from contracts.errors import InvalidRequest
from training.recipes import StageRecipe
from training.samples import LatentStep, Sample


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
