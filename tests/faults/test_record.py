"""The checker sees what it is there to see. Logs here are written by hand."""

from typing import Any

import pytest

from tests.faults.record import Record, Request
from tests.faults.verdict import judge, require_nothing_lost

ANSWER = "RRDD"


def log(*, answer: str = ANSWER, response_id: str = "resp_1") -> list[dict[str, Any]]:
    """A right one, with a latent step, begun twice."""
    steps = [{"index": 0, "text": "So RRDD"}, {"index": 1, "size": 8}]
    response = {"steps": steps, "answer": answer, "metadata": {"n": "1"}}
    events: list[dict[str, Any]] = [
        {"type": "response.created"},
        {"type": "response.in_progress"},
        {"type": "step.started", "index": 0, "step_type": "text"},
        {"type": "step.delta", "index": 0, "text": "So it"},
        {"type": "response.restarted", "attempt": 2},
        {"type": "response.in_progress"},
        {"type": "step.started", "index": 0, "step_type": "text"},
        {"type": "step.delta", "index": 0, "text": "So "},
        {"type": "step.delta", "index": 0, "text": "RRDD"},
        {"type": "step.completed", "index": 0, "step_type": "text", "text": "So RRDD"},
        {"type": "step.started", "index": 1, "step_type": "latent"},
        {"type": "step.delta", "index": 1, "size": 3},
        {"type": "step.delta", "index": 1, "size": 8},
        {"type": "step.completed", "index": 1, "step_type": "latent", "size": 8},
        {"type": "response.completed", "response": response},
    ]
    return [{**event, "response_id": response_id, "sequence_number": n} for n, event in enumerate(events)]


def heard(events: list[dict[str, Any]]) -> Record:
    record = Record(Request(1, {"metadata": {"n": "1"}}, ANSWER))
    for event in events:
        record.hear(event)
    return record


def without(number: int) -> list[dict[str, Any]]:
    events = log()
    del events[number]
    return events


def test_a_right_answer_has_no_problem() -> None:
    record = heard(log())
    assert (record.outcome, record.problems(), record.num_restarts) == ("completed", [], 1)
    verdict = judge("x", [record], {1: {"resp_1"}}, 1.0)
    assert (verdict.completed, verdict.restarted, verdict.lost, verdict.twice, verdict.wrong) == (1, 1, 0, 0, 0)
    require_nothing_lost(verdict, [record], {})


@pytest.mark.parametrize(
    ("events", "outcome"),
    [
        (log()[:-1], "lost"),
        ([], "lost"),
        (log(answer="DDRR"), "wrong"),
        (without(3), "wrong"),  # a gap
        ([*log()[:9], log()[8], *log()[9:]], "wrong"),  # one twice
        ([*log(), log()[-2]], "lost"),  # something after the end
        ([*log()[:-1], {**log()[-1], "type": "response.cancelled"}], "wrong"),
        ([*log()[:8], {**log()[8], "text": "DDDD"}, *log()[9:]], "wrong"),  # deltas of another text
    ],
)
def test_a_flaw_is_seen(events: list[dict[str, Any]], outcome: str) -> None:
    record = heard(events)
    assert record.outcome == outcome
    with pytest.raises(AssertionError, match="request 1"):
        require_nothing_lost(judge("x", [record], {}, 1.0), [record], {})


def test_a_failure_that_can_be_sent_again_is_allowed_only_where_it_is() -> None:
    failed = {**log()[-1], "type": "response.failed", "error": {"code": "engine_dead", "retryable": True}}
    record = heard([*log()[:-1], failed])
    verdict = judge("x", [record], {}, 1.0)
    assert (record.outcome, verdict.failed) == ("failed", 1)
    require_nothing_lost(verdict, [record], {}, may_fail=True)
    with pytest.raises(AssertionError, match="engine_dead"):
        require_nothing_lost(verdict, [record], {})
    assert heard([*log()[:-1], {**failed, "error": {"code": "invalid", "retryable": False}}]).outcome == "wrong"


def test_two_answers_to_one_key_are_seen() -> None:
    seen = heard([*log()[:3], *log(response_id="resp_2")[3:]])
    silent = heard(log())
    assert judge("x", [seen], {}, 1.0).twice == 1
    assert judge("x", [silent], {1: {"resp_1", "resp_2"}}, 1.0).twice == 1  # no client heard of the second
    two_ends = heard([*log(), {**log()[-1], "sequence_number": 15}])
    assert judge("x", [two_ends], {}, 1.0).twice == 1


def test_a_log_that_is_gone_is_begun_anew() -> None:
    record = heard(log()[:5])
    record.forget()
    for event in log(response_id="resp_2"):
        record.hear(event)
    verdict = judge("x", [record], {1: {"resp_1", "resp_2"}}, 1.0)
    assert (record.outcome, verdict.twice, verdict.forgotten) == ("completed", 0, 1)
    require_nothing_lost(verdict, [record], {}, may_fail=True)
    with pytest.raises(AssertionError):
        require_nothing_lost(verdict, [record], {})


def test_one_redis_with_two_responses_is_seen_also_where_a_log_was_forgotten() -> None:
    record = heard(log()[:5])
    record.forget()
    for event in log(response_id="resp_2"):
        record.hear(event)
    in_redis = {1: {"resp_2", "resp_3"}}  # the one that the client was told, and one that nobody heard of
    verdict = judge("x", [record], in_redis, 1.0, in_redis)
    assert verdict.twice == 1
    with pytest.raises(AssertionError, match="resp_3"):
        require_nothing_lost(verdict, [record], in_redis, in_redis, may_fail=True)
    assert judge("x", [record], {1: {"resp_1", "resp_2"}}, 1.0, {1: {"resp_2"}}).twice == 0
