"""Metrics as JSON lines and for TensorBoard; a run that goes back rewrites what came after."""

import json
import os
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from contracts.errors import BadSettings
from training.run_log import METRICS_FILE, Metrics, RunLog


def metrics(step: int, loss: float) -> Metrics:
    return Metrics(
        step=step,
        num_steps=9,
        epoch=0,
        loss=loss,
        cross_entropy=loss,
        similarity=None,
        learning_rate=1e-5,
        gradient_norm=1.0,
        num_samples=8,
        num_tokens=800,
        step_s=2.0,
        tokens_per_s=400.0,
    )


def write(out: Path, first: int, losses: list[float]) -> None:
    log = RunLog(out, first)
    for step, loss in enumerate(losses, start=first):
        log.write(metrics(step, loss))
    log.close()


def test_steps_after_the_one_gone_back_to_are_replaced(tmp_path: Path) -> None:
    write(tmp_path, 1, [4.0, 3.0, 2.0])
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write('{"step": 4, "lo')  # a line cut short by a crash
    write(tmp_path, 3, [1.5, 1.0])
    lines = [json.loads(line) for line in (tmp_path / METRICS_FILE).read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 4.0), (2, 3.0), (3, 1.5), (4, 1.0)]


def test_tensorboard_shows_the_same(tmp_path: Path) -> None:
    write(tmp_path, 1, [4.0, 3.0])
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert [(event.step, event.value) for event in board.Scalars("loss")] == [(1, 4.0), (2, 3.0)]
    assert "similarity" not in board.Tags()["scalars"]


def test_a_log_that_cannot_be_written_is_told_with_its_folder(tmp_path: Path) -> None:
    """A folder in the place of the file, a file in the place of the folder, and a disk without room (/dev/full)."""
    (tmp_path / "full").mkdir()
    (tmp_path / "taken").write_text("a file")
    (tmp_path / "full" / METRICS_FILE).mkdir()
    for out in (tmp_path / "full", tmp_path / "taken"):
        with pytest.raises(BadSettings, match=f"^cannot write to {out}: "):
            RunLog(out, 1)
    log = RunLog(tmp_path / "log", 1)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, log._file.fileno())
    os.close(full)
    for write in (lambda: log.write(metrics(1, 1.0)), log.close):
        with pytest.raises(BadSettings, match=f"^cannot write to {tmp_path / 'log'}: No space left on device"):
            write()
