"""Locust's users. All they ask goes through :class:`Load`, which is one per process.

Locust counts each request under its kind, and under TIME what is measured inside of streams, so that its tables and its
page show that too.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import gevent
from gevent.pool import Group
from locust import User, task
from locust.env import Environment
from locust.user.task import LOCUST_STATE_STOPPING

from loadtests.arrivals import share_of
from loadtests.connection import get_json
from loadtests.exchange import Exchange
from loadtests.mix import Ask, mixed
from loadtests.profile import Profile
from loadtests.recorder import LATENESS, TIME_TO_ANSWER, TITLES, Recorder


class Unanswered(Exception):
    """Of a request, for locust: what came instead of an answer."""


class TellingRecorder(Recorder):
    """Tells locust what it records, too."""

    def __init__(self, window_s: float, environment: Environment) -> None:
        super().__init__(window_s)
        self._environment = environment

    def time(self, measure: str, kind: str, due_s: float, seconds: float) -> None:
        super().time(measure, kind, due_s, seconds)
        if measure not in (TIME_TO_ANSWER, LATENESS):  # the first is locust's response time already
            self._environment.events.request.fire(
                request_type="TIME",
                name=TITLES[measure],
                response_time=seconds * 1000,
                response_length=0,
                exception=None,
                context={},
            )


class Load:
    """One process's part of the load, the ``index``-th of ``num_processes``."""

    def __init__(self, environment: Environment, profile: Profile, index: int, num_processes: int) -> None:
        self._environment = environment
        self.profile = profile
        self.recorder = TellingRecorder(profile.window_s, environment)
        self._index = index
        self._num_processes = num_processes
        self._host = environment.host or ""
        self._model = str(get_json(self._host, "/v1/models")["data"][0]["id"])  # type: ignore[index]
        self._ask_of: Callable[[int], Ask] = mixed(profile)
        self._numbers = self._own_numbers()
        self._is_taken = False
        self._began_at = time.monotonic()

    def take_arrivals(self) -> bool:
        """Whether the caller makes this process's arrivals: the first who asks does."""
        was_taken, self._is_taken = self._is_taken, True
        return not was_taken

    def arrive(self, is_stopping: Callable[[], bool]) -> None:
        """Open loop: each request begins when it is due, in a greenlet of its own. Returns when all have ended."""
        requests: Group = Group()
        self._began_at = time.monotonic()
        for number, due_s in share_of(self.profile, self._index, self._num_processes):
            ask = self._ask_of(number)  # drawn before it is due
            gevent.sleep(max(self._began_at + due_s - time.monotonic(), 0.0))
            if is_stopping():
                break
            requests.spawn(self._exchange, ask, due_s)
        requests.join(timeout=self.profile.drain_s)
        requests.kill()
        self.recorder.done()

    def ask_next(self) -> None:
        """Closed loop: one request, due now."""
        ask = self._ask_of(next(self._numbers))
        self._exchange(ask, time.monotonic() - self._began_at)

    def _own_numbers(self) -> Iterator[int]:
        number = self._index
        while True:
            yield number
            number += self._num_processes

    def _exchange(self, ask: Ask, due_s: float) -> None:
        exchange = Exchange(
            self._host, self._model, self.profile, ask, self.recorder, began_at=self._began_at, due_s=due_s
        )
        try:
            exchange.run()
        finally:
            is_bad = exchange.outcome in ("failed", "refused", "unfinished")
            told: dict[str, Any] = {
                "request_type": "POST",
                "name": f"{exchange.path} {exchange.name}",
                "response_time": exchange.age_s * 1000,
                "response_length": exchange.num_bytes,
                "exception": Unanswered(exchange.reason or exchange.outcome) if is_bad else None,
                "context": {},
            }
            self._environment.events.request.fire(**told)


class Arrivals(User):
    """Open loop. One to a process makes the arrivals of all the people it stands for."""

    load: ClassVar[Load]

    @task
    def arrive(self) -> None:
        if self.load.take_arrivals():
            self.load.arrive(lambda: self._state == LOCUST_STATE_STOPPING)
        gevent.sleep(0.1)


class Visitor(User):
    """Closed loop: asks, waits for the answer, asks again."""

    load: ClassVar[Load]

    @task
    def ask(self) -> None:
        self.load.ask_next()
