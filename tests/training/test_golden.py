"""The comparison with the recorded training step of the released code: that it passes, and that it can fail."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from training.golden import main

GOLDEN = Path(__file__).parents[1] / "golden"
# What a folder in this format holds.
FILES = ("gen_weights.py", "build_ckpts.py", "spec-b.json", "train.npz", "tok", "ckpt-b-config", "images")


def _copy(folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """What the format promises and no more, with one changed sample."""
    folder.mkdir()
    for name in FILES:
        copy = shutil.copytree if (GOLDEN / name).is_dir() else shutil.copy
        copy(GOLDEN / name, folder / name)
    content = json.loads((GOLDEN / "train.json").read_text())
    del content["samples"][1:]
    change(content["samples"][0])
    (folder / "train.json").write_text(json.dumps(content))
    # A second checkpoint that cannot be made: there is no spec of it.
    (folder / "ckpt-z-config").mkdir()
    return folder


def test_the_recorded_step_is_met(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(GOLDEN)]) == 0
    out, _ = capsys.readouterr()
    assert "WRONG" not in out
    compared = {line[:34].strip() for line in out.splitlines()}
    asked_for = {
        *("u", "queries", "similarities", "selected candidates", "K*", "teacher's latents", "labels"),
        *("stage 1 cross entropy", "stage 1 cosine", "stage 1 total", "stage 1 gradient norms"),
        *("stage 2 cross entropy", "stage 2 gradient norms", "stage 2 aligned total"),
    }
    assert asked_for <= compared


def test_what_was_altered_is_named_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One label, two indices in another order, and a loss by 2e-4; only the checkpoint that is named gets made."""

    def change(sample: dict[str, Any]) -> None:
        sample["labels"][-1] += 1
        first = sample["stage1"]["selected"][0]
        first[0], first[1] = first[1], first[0]
        sample["stage1"]["ce"] *= 1 + 2e-4

    assert main([str(_copy(tmp_path / "altered", change))]) == 1
    _, err = capsys.readouterr()
    assert err.splitlines()[-1] == "different: labels, selected candidates, stage 1 cross entropy"


def test_a_folder_without_a_recording_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"{tmp_path}: train.json, train.npz, build_ckpts.py missing; " + (
        "a recorded training step has them\n"
    )
