"""Exceptions for a log that more people may read than may read the requests: where it happened, not with what.

The message of a library's exception may quote what it was given: a question, a key. Ours and the system's do not.
"""

import traceback
from collections.abc import Iterator

from contracts.errors import IlvrError

OPEN_TYPES = (IlvrError, OSError, MemoryError)
HIDDEN = "(message hidden; ILVR_LOG_CONTENT=show shows it)"
# Of exceptions behind exceptions; a chain can be made a circle.
MAX_DEPTH = 20


def traceback_without_messages(error: BaseException) -> str:
    """As Python prints it, without notes and without the messages of exceptions whose makers we do not know."""
    return "\n".join(_blocks(error, depth=0))


def _blocks(error: BaseException, depth: int) -> Iterator[str]:
    if depth == MAX_DEPTH:
        return
    if error.__cause__ is not None:
        yield from _blocks(error.__cause__, depth + 1)
        yield "\nwhich was the cause of:\n"
    elif error.__context__ is not None and not error.__suppress_context__:
        yield from _blocks(error.__context__, depth + 1)
        yield "\nduring whose handling came:\n"
    yield "Traceback (most recent call last):"
    yield "".join(traceback.format_tb(error.__traceback__)).rstrip()
    yield _name_of(error)
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield "\nin this group:\n"
            yield from _blocks(inner, depth + 1)


def _name_of(error: BaseException) -> str:
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return f"{name}: {error if isinstance(error, OPEN_TYPES) else HIDDEN}"
