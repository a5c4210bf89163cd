"""Parts of the embedded broker by themselves, by a clock that tests move."""

import pytest

from broker.affinity import MAX_IMAGES_PER_RUNNER, Affinity
from broker.buckets import TokenBuckets
from broker.log import ResponseLog
from broker.queue import FairQueue
from broker.rate import EndRate, retry_after_s
from contracts.errors import RateLimited
from contracts.jobs import RateLimit
from tests.broker.samples import Clock, job


@pytest.fixture
def clock() -> Clock:
    return Clock()


def waiting(name: str, owner: str = "", num_bytes: int = 1) -> ResponseLog:
    return ResponseLog(job(name, owner=owner), 0.0, num_bytes)


class TestQueue:
    def test_owners_take_turns_and_each_keeps_its_order(self) -> None:
        queue = FairQueue()
        for name in ("a1", "a2", "a3", "b1", "c1", "c2"):
            queue.push(waiting(name, owner=name[0]))
        queue.push(waiting("back", owner="a"), is_first=True)
        order = [queue.pop().job.response_id for _ in range(len(queue))]
        assert order == ["back", "a1", "b1", "c1", "a2", "c2", "a3"]
        with pytest.raises(LookupError):
            queue.pop()

    def test_the_next_one_is_the_one_that_is_taken(self) -> None:
        queue = FairQueue()
        with pytest.raises(LookupError):
            queue.peek()
        for name in ("a1", "a2", "b1"):
            queue.push(waiting(name, owner=name[0]))
        while queue:
            assert queue.peek() is queue.pop()

    def test_a_place_in_line_is_that_of_the_turns(self) -> None:
        """Of a newcomer, a job of each other; of one with two waiting, three of each other at most, and its own two."""
        queue = FairQueue()
        for name in ("a1", "a2", "a3", "a4", "b1", "b2"):
            queue.push(waiting(name, owner=name[0]))
        assert queue.num_ahead_of("new") == 2
        assert queue.num_ahead_of("b") == 2 + 3
        assert queue.num_ahead_of("a") == 4 + 2

    def test_bytes_are_counted_as_jobs_come_and_go(self) -> None:
        queue = FairQueue()
        logs = [waiting("a1", "a", 5), waiting("b1", "b", 7), waiting("b2", "b", 11)]
        for log in logs:
            queue.push(log)
        assert (len(queue), queue.num_bytes) == (3, 23)
        queue.remove(logs[1])
        assert (len(queue), queue.num_bytes) == (2, 16)
        with pytest.raises(ValueError, match="not in"):
            queue.remove(logs[1])
        queue.pop()
        queue.pop()
        assert (len(queue), queue.num_bytes) == (0, 0)


class TestRate:
    @pytest.mark.parametrize(
        ("num_waiting", "num_ended", "span_s", "expected"),
        [
            (100, 10, 10.0, 60),  # one a second: 100 s, which is more than anybody is told
            (10, 20, 10.0, 5),
            (3, 1000, 10.0, 1),
            (0, 5, 10.0, 1),
            (8, 4, 0.0, 2),  # all at once: as if within a second
            (8, 0, 0.0, 5),  # unknown
        ],
    )
    def test_it_is_the_time_in_which_as_many_end(
        self, num_waiting: int, num_ended: int, span_s: float, expected: int
    ) -> None:
        assert retry_after_s(num_waiting, num_ended, span_s) == expected

    def test_what_ended_more_than_a_minute_ago_says_nothing(self, clock: Clock) -> None:
        rate = EndRate(clock)
        for _ in range(10):
            rate.count()
            clock.now_s += 1
        assert rate.retry_after_s(20) == 20
        clock.now_s += 50
        assert rate.retry_after_s(20) == 60  # 60 s of which hold ten ends, so two minutes
        clock.now_s += 20
        assert rate.retry_after_s(20) == 5


class TestBuckets:
    def test_what_a_bucket_holds_and_how_it_fills(self, clock: Clock) -> None:
        buckets, limit = TokenBuckets(clock), RateLimit(per_minute=6.0, burst=2)  # one in ten seconds
        buckets.spend("a", limit, 1)
        buckets.spend("a", limit, 1)
        with pytest.raises(RateLimited) as refused:
            buckets.spend("a", limit, 1)
        assert refused.value.retry_after_s == 10
        clock.now_s += 9.5
        with pytest.raises(RateLimited) as refused:
            buckets.spend("a", limit, 1)
        assert refused.value.retry_after_s == 1
        clock.now_s += 0.5
        buckets.spend("a", limit, 1)
        clock.now_s += 1000
        buckets.spend("a", limit, 1)
        buckets.spend("a", limit, 1)
        with pytest.raises(RateLimited):
            buckets.spend("a", limit, 1)

    def test_a_full_bucket_is_forgotten(self, clock: Clock) -> None:
        buckets, limit = TokenBuckets(clock), RateLimit(per_minute=60.0, burst=5)
        for number in range(100):
            buckets.spend(str(number), limit, 1)
        clock.now_s += 0.5
        buckets.forget_full()
        assert len(buckets._full_at) == 100
        clock.now_s += 0.5
        buckets.forget_full()
        assert buckets._full_at == {}


def test_a_runner_is_remembered_for_its_latest_images_only() -> None:
    affinity = Affinity()
    affinity.note("r1", ["first", "again"])
    affinity.note("r1", [f"img_{number}" for number in range(MAX_IMAGES_PER_RUNNER - 1)])
    assert not affinity.knows_any("r1", ["first"])
    assert affinity.knows_any("r1", ["unknown", "again"])
    assert not affinity.knows_any("r2", ["again"])
    affinity.forget_runner("r1")
    assert not affinity.knows_any("r1", ["again"])
