"""A bar for each ablation, on stderr; what an earlier run has answered counts as done."""

from collections.abc import Collection, Sequence
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from training.answer_log import Ablation, AnswerLog, Entry


class EvaluationProgress:
    """Use it as a context; :meth:`advance` for each new entry of the log."""

    def __init__(self, log: AnswerLog, ablations: Sequence[Ablation], indices: Collection[int]) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        console = Console(stderr=True)
        self._bars = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console)
        self._tasks = {
            ablation: self._bars.add_task(
                f"latents {ablation}",
                start=False,  # its clock runs from its first answer
                total=len(indices),
                completed=sum(log.is_answered(ablation, index) for index in indices),
            )
            for ablation in ablations
        }

    def advance(self, entry: Entry) -> None:
        task = self._tasks[entry.ablation]
        self._bars.start_task(task)
        self._bars.advance(task)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()
