"""Events that came with messages: what is known of them, and what takes the log to say."""

import pytest

from broker.redis.news import News
from contracts.events import encode_event
from tests.broker.samples import delta, done, job


@pytest.mark.parametrize("message", [b"", b"x", b"\n", b"deltas\n3", b"v2\nthree\n{}", b"\n-1\n{}", b"deltas\n3\n"])
def test_a_message_in_another_form_says_nothing(message: bytes) -> None:
    news = News()
    assert news.hear(message) is None
    assert news.since(0, deltas=True) == ([], 0)


def test_from_any_place_that_is_known() -> None:
    news, told = News(), [delta("resp_a", text) for text in "abc"]
    for first in (4, 5):
        news.hear(b"deltas\n%d\n%s" % (first, encode_event(told[first - 4])))
    news.hear(b"\n6\n%s\n%s" % (encode_event(told[2]), encode_event(done(job("resp_a")))))
    whole = news.since(4, deltas=True)
    assert whole is not None
    assert ([event.sequence_number for event in whole[0]], whole[1]) == ([4, 5, 6, 7], 8)
    part = news.since(7, deltas=True)
    assert part == (whole[0][3:], 8)
    assert news.since(5, deltas=False) == (whole[0][2:], 8)
    assert news.since(8, deltas=True) == ([], 8)
    assert news.since(3, deltas=True) is news.since(9, deltas=True) is None


def test_a_gap_is_not_bridged() -> None:
    news = News()
    for first in (0, 2):
        news.hear(b"deltas\n%d\n%s" % (first, encode_event(delta("resp_a", "x"))))
    assert news.since(0, deltas=True) is None
    assert news.since(2, deltas=True) is not None
