"""What is counted after a scenario, and what must be zero."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.faults.record import Record


@dataclass
class Verdict:
    """One row of the table. ``failed``: told to send it again; ``restarted``: begun again by another runner."""

    scenario: str
    requests: int
    completed: int
    failed: int
    restarted: int
    resumed: int
    refused: int
    forgotten: int
    lost: int
    twice: int
    wrong: int
    seconds: float

    def row(self) -> dict[str, object]:
        return asdict(self)


def judge(
    scenario: str,
    records: Sequence[Record],
    runs: dict[int, set[str]],
    seconds: float,
    in_redis: dict[int, set[str]] | None = None,
) -> Verdict:
    """Responses by the number of the request. ``runs``: all made or begun; ``in_redis``: in the one there is."""
    outcomes = Counter(record.outcome for record in records)
    return Verdict(
        scenario=scenario,
        requests=len(records),
        completed=outcomes["completed"],
        failed=outcomes["failed"],
        restarted=sum(record.num_restarts > 0 for record in records),
        resumed=sum(record.num_resumed for record in records),
        refused=sum(record.refusals.total() for record in records),
        forgotten=sum(record.num_forgotten for record in records),
        lost=outcomes["lost"],
        twice=sum(is_twice(record, runs, in_redis or {}) for record in records),
        wrong=outcomes["wrong"],
        seconds=round(seconds, 1),
    )


def is_twice(record: Record, runs: dict[int, set[str]], in_redis: dict[int, set[str]]) -> bool:
    """Also if there was a second response to the same request, of which no client heard.

    One Redis never has two, whatever was forgotten: a response that went with an old one is not in it.
    """
    number = record.request.number
    is_made_twice = len(in_redis.get(number, ())) > 1 or len(runs.get(number, ())) > 1 + record.num_forgotten
    return record.is_answered_twice or is_made_twice


def require_nothing_lost(
    verdict: Verdict,
    records: Iterable[Record],
    runs: dict[int, set[str]],
    in_redis: dict[int, set[str]] | None = None,
    *,
    may_fail: bool = False,
) -> None:
    """Raises ``AssertionError`` with the first few requests that something is wrong with.

    may_fail: what the clients were told to send again, and logs that are gone, are no fault of this scenario.
    """
    allowed = ("completed", "failed") if may_fail else ("completed",)
    bad = [record for record in records if record.outcome not in allowed or is_twice(record, runs, in_redis or {})]
    shown = "\n".join(f"{_shown(record)} {runs.get(record.request.number)}" for record in bad[:5])
    assert (verdict.lost, verdict.twice, verdict.wrong) == (0, 0, 0), f"{verdict}\n{shown}"
    if not may_fail:
        assert (verdict.failed, verdict.forgotten) == (0, 0), f"{verdict}\n{shown}"
    assert verdict.requests > 0


def read_runs(files: Iterable[Path]) -> dict[int, set[str]]:
    """Of the scripted engine: the responses that it began, by the number of the request."""
    runs: dict[int, set[str]] = defaultdict(set)
    for file in files:
        for line in file.read_text().splitlines():
            number, request_id = line.split()
            runs[int(number)].add(request_id.rpartition("-")[0])
    return runs


def _shown(record: Record) -> str:
    ids = ", ".join(record.response_ids)
    said = [f"{event['sequence_number']} {event['type']}" for event in record.events]
    problems = record.problems() if record.events else []
    return f"request {record.request.number} ({ids}) {record.outcome}: {problems} {record.refusals} {said[-12:]}"
