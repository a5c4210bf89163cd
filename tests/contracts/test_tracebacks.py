"""What a log says of an exception, and what it does not."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from contracts.errors import BadSettings, EngineDead
from contracts.line_writer import LineWriter
from contracts.logs import LineHandler, LogSettings, configure_logs, log_settings
from contracts.tracebacks import MAX_DEPTH, traceback_without_messages
from tests.kept_logging import kept_logging

SECRET = "what the caller asked"


def caught(do: Callable[[], object]) -> BaseException:
    try:
        do()
    except BaseException as error:
        return error
    raise AssertionError


def fail(error: BaseException) -> None:
    raise error


def test_it_says_where_and_what_but_not_with_what() -> None:
    told = traceback_without_messages(caught(lambda: fail(ValueError(SECRET))))
    assert SECRET not in told
    assert told.startswith("Traceback (most recent call last):\n  File ")
    assert "in fail\n    raise error" in told
    assert told.splitlines()[-1] == "ValueError: (message hidden; ILVR_LOG_CONTENT=show shows it)"


def test_our_own_messages_and_the_systems_are_shown() -> None:
    assert traceback_without_messages(EngineDead("The engine is gone.")).endswith("EngineDead: The engine is gone.")
    told = traceback_without_messages(caught(Path("/none").read_text))
    assert told.endswith("FileNotFoundError: [Errno 2] No such file or directory: '/none'")


def test_nothing_of_what_is_behind_it_is_shown_either() -> None:
    def chained() -> None:
        try:
            int(SECRET)
        except ValueError as error:
            error.add_note(SECRET)
            try:
                raise KeyError(SECRET)
            except KeyError as second:
                raise EngineDead("It ended.") from second

    told = traceback_without_messages(caught(chained))
    assert SECRET not in told
    kinds = [line.partition(":")[0] for line in told.splitlines() if line[:1].isalpha() and "hidden" in line]
    assert kinds == ["ValueError", "KeyError"]
    assert told.index("during whose handling came:") < told.index("which was the cause of:")
    assert told.endswith("EngineDead: It ended.")


def test_a_context_that_was_left_out_stays_out() -> None:
    def replaced() -> None:
        try:
            int(SECRET)
        except ValueError:
            raise EngineDead("It ended.") from None

    assert "ValueError" not in traceback_without_messages(caught(replaced))


def test_groups_and_circles_end() -> None:
    group = ExceptionGroup(SECRET, [ValueError(SECRET), ExceptionGroup(SECRET, [OSError("disk")])])
    told = traceback_without_messages(group)
    assert SECRET not in told
    assert told.endswith("OSError: disk")
    one, other = ValueError(SECRET), ValueError(SECRET)
    one.__cause__, other.__cause__ = other, one
    assert traceback_without_messages(one).count("ValueError") == MAX_DEPTH


@pytest.mark.parametrize("is_json", [True, False])
@pytest.mark.parametrize(
    ("process", "content", "is_shown"), [("gateway", "hide", 0), ("gateway", "show", 1), ("engine", "hide", 1)]
)
def test_lines_of_a_process(
    process: str, content: str, is_shown: int, is_json: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(LineWriter, "write", lambda self, line: lines.append(line))
    with kept_logging():
        writer = configure_logs(process, LogSettings(format="json" if is_json else "text", content=content))
        assert isinstance(logging.getLogger().handlers[0], LineHandler)
        logging.getLogger("ilvr").error("it failed", exc_info=caught(lambda: fail(ValueError(SECRET))))
        writer.close()
    (line,) = lines
    assert (SECRET in line) == bool(is_shown)
    assert "ValueError" in line
    if is_json:
        assert json.loads(line)["event"] == "it failed"


def test_the_setting() -> None:
    assert log_settings({"ILVR_LOG_CONTENT": "show"}).content == "show"
    assert log_settings({}).content == "hide"
    with pytest.raises(BadSettings, match="ILVR_LOG_CONTENT is 'true'; it is one of hide, show"):
        log_settings({"ILVR_LOG_CONTENT": "true"})
