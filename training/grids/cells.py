"""The auxiliary loss on cells: what a small tower learns to see from.

A departure, named as such: ILVR has no such loss. The classifiers are thrown away after training.

Shape letters: B pictures, N cells, H hidden size.
"""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional

from training.batch import IGNORED_LABEL
from training.grids.batches import GridBatch
from training.grids.tasks import GridTask


class CellClassifiers(nn.Module):
    """One linear head for all classifiers of a task, on the visual feature of each cell."""

    def __init__(self, hidden_size: int, tasks: Mapping[str, GridTask]) -> None:
        super().__init__()
        self.heads = nn.ModuleDict(
            {name: nn.Linear(hidden_size, sum(task.num_classes)) for name, task in tasks.items()}
        )

    def forward(self, grid: GridBatch, features_NH: Tensor) -> Tensor:
        """Sum over classifiers of the mean cross entropy of a cell."""
        scores = self.heads[grid.task.name](features_NH).split(list(grid.task.num_classes), dim=-1)
        losses = [
            functional.cross_entropy(one, labels_BN.flatten(), ignore_index=IGNORED_LABEL)
            for one, labels_BN in zip(scores, grid.cell_labels_BN, strict=True)
        ]
        total: Tensor = sum(losses[1:], start=losses[0])
        return total
