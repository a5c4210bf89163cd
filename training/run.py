"""A run of a stage, from outside: what it is asked to do, and who hears how it goes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from training.recipes import StageRecipe
from training.run_log import Metrics


@dataclass(frozen=True, kw_only=True)
class Run:
    """What to train, on what, and where to. cache: folder of targets; by default in ``out``, to be shared by runs.

    stop_after: save and end after this step, though the recipe goes on. created_by: goes into manifests.
    """

    recipe: StageRecipe
    model: Path
    data: Path
    out: Path
    image_root: Path | None = None
    cache: Path | None = None
    resume: bool = False
    stop_after: int | None = None
    num_workers: int = 0
    created_by: dict[str, Any]


class Reporter(Protocol):
    """Hears of a run, in its main process."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def targets(self, done: int, total: int) -> None:
        """Targets made of those that this process makes."""

    def step(self, metrics: Metrics) -> None:
        """An optimizer step."""


class Silent:
    """Tells nobody."""

    def note(self, text: str) -> None: ...

    def targets(self, done: int, total: int) -> None: ...

    def step(self, metrics: Metrics) -> None: ...
