"""What ``ilvr ask`` refuses before it looks for a server: one line, no stack trace."""

import pytest

from ilvr.cli import main


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--temperature", "nan", "Why?"], "finite"),
        (["--temperature", "inf", "Why?"], "finite"),
        (["\udcff\udcfe"], "not valid UTF-8"),
    ],
)
def test_impossible_arguments(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", *words]) == 1
    error = capsys.readouterr().err
    assert error.startswith("ilvr ask: ")
    assert told in error
