"""Settings of a runner: a wrong name or value stops the start with one line that names it."""

from pathlib import Path

import pytest

from contracts.errors import BadSettings
from model_runner.settings import load_settings


def test_variables_are_read_and_arguments_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ILVR_RUNNER_MAX_NUM_SEQS", "7")
    assert load_settings(model=Path("m")).max_num_seqs == 7
    assert load_settings(model=Path("m"), max_num_seqs=9).max_num_seqs == 9


def test_a_misspelt_variable_is_refused_with_the_name_that_was_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ILVR_RUNNER_MAX_NUM_SEQ", "7")
    with pytest.raises(BadSettings, match=r"ILVR_RUNNER_MAX_NUM_SEQ is not a setting; did you mean .*MAX_NUM_SEQS"):
        load_settings(model=Path("m"))


def test_an_impossible_value_names_option_and_variable() -> None:
    with pytest.raises(BadSettings, match=r"--max-num-seqs \(ILVR_RUNNER_MAX_NUM_SEQS\)"):
        load_settings(model=Path("m"), max_num_seqs=0)
