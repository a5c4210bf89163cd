"""``ilvr train`` without a stage: what is wrong with its arguments."""

from pathlib import Path

import pytest

from ilvr.cli import main


@pytest.mark.parametrize("scale", ["0", "-1", "nan", "inf", "-inf"])
def test_a_scale_that_is_no_number_above_zero_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], scale: str
) -> None:
    out = tmp_path / "out"
    assert main(["train", "--config", "maze_tiny", "--out", str(out), f"--minutes-scale={scale}"]) == 1
    told = f"ilvr train: --minutes-scale must be a number greater than 0, not {scale}\n"
    assert capsys.readouterr().err == told
    assert not out.exists()
