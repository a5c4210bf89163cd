"""What a run reports of each optimizer step: JSON lines, and the same for TensorBoard."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from training.writing import writing

METRICS_FILE = "metrics.jsonl"
# Shown as curves; the others are coordinates.
CURVES = ("loss", "cross_entropy", "similarity", "learning_rate", "gradient_norm", "step_s", "tokens_per_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """One optimizer step, over all processes. Losses are means over its samples; ``similarity`` is L_sim."""

    step: int
    num_steps: int
    epoch: int
    loss: float
    cross_entropy: float
    similarity: float | None
    learning_rate: float
    gradient_norm: float | None  # before clipping
    num_samples: int
    num_tokens: int
    step_s: float
    tokens_per_s: float


class RunLog:
    """Appends to ``OUT/metrics.jsonl`` and ``OUT/tensorboard``."""

    def __init__(self, out: Path, first_step: int) -> None:
        """``first_step``: the first to be logged. Later ones, from before the run went back to it, are dropped.

        Raises:
            BadSettings: ``out`` cannot be written; ``write`` and ``close`` raise it too.
        """
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and needed here only

        self._out = out
        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
            _drop_from(out / METRICS_FILE, first_step)
            self._file = (out / METRICS_FILE).open("a", encoding="utf-8")
            self._board = SummaryWriter(str(out / "tensorboard"), purge_step=first_step)

    def write(self, metrics: Metrics) -> None:
        values = asdict(metrics)
        with writing(self._out):
            self._file.write(json.dumps(values) + "\n")
            self._file.flush()
            for name in CURVES:
                if values[name] is not None:
                    self._board.add_scalar(name, values[name], metrics.step)

    def close(self) -> None:
        with writing(self._out):
            try:
                self._file.close()
            finally:
                self._board.close()


def _drop_from(file: Path, first_step: int) -> None:
    """Keep the lines of earlier steps; a line cut short by a crash goes too."""
    if not file.exists():
        return
    kept = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] < first_step:
                kept.append(line + "\n")
        except (json.JSONDecodeError, KeyError, TypeError):
            continue
    partial = file.with_suffix(".partial")
    partial.write_text("".join(kept), encoding="utf-8")
    partial.replace(file)
