"""The checkpoints of a run: ``OUT/checkpoints/step-00000500``, named only when complete, the oldest removed.

Each can be served as it is; ``state/`` in it holds what training goes on from.
"""

import os
import re
import shutil
from pathlib import Path

STATE = "state"
_NAME = re.compile(r"step-(\d+)")
_PARTIAL = ".partial-"


class CheckpointFolders:
    """Of one run. Several processes may write into a partial folder; one of them completes it."""

    def __init__(self, out: Path, keep: int) -> None:
        self.folder = out / "checkpoints"
        self._keep = keep

    def complete(self) -> list[Path]:
        """Oldest first."""
        if not self.folder.is_dir():
            return []
        steps = {int(found[1]): path for path in self.folder.iterdir() if (found := _NAME.fullmatch(path.name))}
        return [steps[step] for step in sorted(steps)]

    def latest(self) -> Path | None:
        complete = self.complete()
        return complete[-1] if complete else None

    def begin(self, step: int) -> Path:
        """A new folder to write into; what interrupted runs left behind is removed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.glob(f"{_PARTIAL}*"):
            shutil.rmtree(path)
        folder = self.partial(step)
        folder.mkdir()
        return folder

    def partial(self, step: int) -> Path:
        """Where the checkpoint of a step is written until it is complete."""
        return self.folder / f"{_PARTIAL}step-{step:08}"

    def finish(self, step: int) -> Path:
        """Give the folder its name, once its content is on the disk; then remove those beyond the number to keep."""
        partial, final = self.partial(step), self.folder / f"step-{step:08}"
        for path in (*partial.rglob("*"), partial):
            _sync(path)
        if final.exists():  # a step that was saved before the run went back to an older one
            shutil.rmtree(final)
        partial.rename(final)
        _sync(self.folder)
        for path in self.complete()[: -self._keep]:
            shutil.rmtree(path)
        return final


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
