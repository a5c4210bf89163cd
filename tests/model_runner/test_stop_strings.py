"""Stop strings in a text that comes in pieces."""

import pytest

from model_runner.stop_strings import StopScanner


def feed(stop: list[str], *pieces: str) -> tuple[list[str], str, bool]:
    """What each piece showed, what was left at the end, and whether it was stopped."""
    scanner = StopScanner(stop)
    shown = []
    for piece in pieces:
        shown.append(scanner.feed(piece))
        if scanner.is_stopped:
            break
    return shown, scanner.flush(), scanner.is_stopped


@pytest.mark.parametrize(
    ("stop", "pieces", "shown", "flushed", "is_stopped"),
    [
        ([], ["a", "b"], ["a", "b"], "", False),
        (["X"], ["aXb"], ["a"], "", True),
        (["X"], ["X"], [""], "", True),
        (["END"], ["aE", "N", "D"], ["a", "", ""], "", True),
        (["END"], ["aE", "N", "x"], ["a", "", "ENx"], "", False),
        (["END"], ["aEN"], ["a"], "EN", False),
        (["aab"], ["aa", "a", "b"], ["", "a", ""], "", True),  # the first a was no part of it after all
        (["abac"], ["aba", "bac"], ["", "ab"], "", True),
        (["\n\n", "END"], ["a\n", "E", "ND"], ["a", "\n", ""], "", True),
        (["bab", "a"], ["ba"], ["b"], "", True),  # complete first, though another one began before
        (["bab", "a"], ["bab"], ["b"], "", True),  # and so too in one piece
        (["b", "ab"], ["xab"], ["x"], "", True),  # complete at the same character: the longer
        (["é"], ["caf", "é!"], ["caf", ""], "", True),
    ],
)
def test_by_hand(stop: list[str], pieces: list[str], shown: list[str], flushed: str, is_stopped: bool) -> None:
    assert feed(stop, *pieces) == (shown, flushed, is_stopped)


def test_a_second_flush_is_empty() -> None:
    scanner = StopScanner(["END"])
    scanner.feed("E")
    assert scanner.flush() == "E"
    assert scanner.flush() == ""
