"""The error tree: what a caller can tell from an error without reading its words."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts import errors as e
from contracts.responses import ErrorInfo, error_info

# Public: a code is never changed. Whether sending the same request again can help stands beside it.
RETRYABLE_BY_CODE = {
    "malformed_body": False,
    "invalid_request": False,
    "not_supported_yet": False,
    "prompt_too_long": False,
    "body_too_large": False,
    "body_too_slow": False,
    "image_too_large": False,
    "not_an_image": False,
    "image_not_found": False,
    "model_not_found": False,
    "response_not_found": False,
    "response_not_finished": False,
    "idempotency_conflict": False,
    "response_cancelled": False,
    "not_authenticated": False,
    "not_permitted": False,
    "url_not_allowed": False,
    "url_not_fetched": False,
    "overloaded": True,
    "rate_limited": True,
    "broker_unavailable": True,
    "not_ready": True,
    "deadline_exceeded": False,
    "generation_failed": True,
    "image_lost": True,
    "engine_dead": True,
    "bad_settings": False,
    "bad_checkpoint": False,
}


def tree(cls: type[e.IlvrError]) -> Iterator[type[e.IlvrError]]:
    yield cls
    for sub in cls.__subclasses__():
        if sub.__module__ == e.__name__:
            yield from tree(sub)


LEAVES = [cls for cls in tree(e.IlvrError) if len(list(tree(cls))) == 1]


def test_codes_and_whether_to_retry() -> None:
    assert {cls.code: cls.is_retryable for cls in LEAVES} == RETRYABLE_BY_CODE
    assert len(LEAVES) == len(RETRYABLE_BY_CODE)


def test_only_leaves_have_codes() -> None:
    for cls in set(tree(e.IlvrError)) - set(LEAVES):
        assert not hasattr(cls, "code")


def test_a_code_is_the_name_of_its_class() -> None:
    for cls in LEAVES:
        assert cls.code == re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()


def test_the_picture_atop_the_file_is_the_tree() -> None:
    """Names by their depth in the drawing, and by their depth as classes."""
    docstring = ast.get_docstring(ast.parse(Path(e.__file__).read_text())) or ""
    drawn = {}
    for line in docstring.splitlines():
        if match := re.match(r"^((?:[│├└─ ] *)*)([A-Z]\w+)(?:  |$)", line):
            drawn[match[2]] = len(match[1]) // 4
    assert drawn == {cls.__name__: len(cls.__mro__) - len(e.IlvrError.__mro__) for cls in tree(e.IlvrError)}


@pytest.mark.parametrize("cls", LEAVES, ids=lambda cls: cls.__name__)
def test_words_and_field(cls: type[e.IlvrError]) -> None:
    error = cls("Do this.", param="images.0.data")
    assert (str(error), error.param) == ("Do this.", "images.0.data")
    assert cls("Do this.").param is None
    assert error_info(error) == ErrorInfo(code=cls.code, message="Do this.", retryable=RETRYABLE_BY_CODE[cls.code])


def test_when_to_come_again() -> None:
    assert e.Overloaded("x").retry_after_s >= 1
    assert e.NotReady("x").retry_after_s > e.Overloaded("x").retry_after_s  # a start takes longer than a request
    assert e.Overloaded("x", retry_after_s=7).retry_after_s == 7
