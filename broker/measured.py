"""A broker whose calls are timed and whose errors are counted; nothing else of it changes."""

import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

from prometheus_client import CollectorRegistry, Counter, Gauge

from contracts.broker import Broker, BrokerClosed, LeaseLost
from contracts.errors import IlvrError
from contracts.loop_histogram import LoopHistograms

# 50 us to 6.6 s: in memory at one end, a Redis server that is away and comes back at the other.
CALL_BUCKETS_S = tuple(0.00005 * 2**i for i in range(18))
# Calls that wait for something to happen: their time says nothing. Their errors are counted all the same.
WAITING = frozenset({"take"})
NAMED_ERRORS = {LeaseLost: "lease_lost", BrokerClosed: "broker_closed"}
OTHER_ERROR = "internal_error"


def measured(broker: Broker, registry: CollectorRegistry, *, max_waiting: int) -> Broker:
    """The same broker; its metrics go to the registry, with the bound of its queue."""
    bound = Gauge(
        "ilvr_broker_max_waiting", "Jobs that may wait beyond those runners have room for.", registry=registry
    )
    bound.set(max_waiting)
    return cast(Broker, _Measured(broker, registry))


class _Measured:
    """Which calls there are is read from the Protocol, so that none can be forgotten."""

    def __init__(self, broker: Broker, registry: CollectorRegistry) -> None:
        self._broker = broker
        self._time = LoopHistograms(
            "ilvr_broker_call_seconds",
            "Calls of the broker that do not wait for events, by name; failed ones included.",
            CALL_BUCKETS_S,
            label="call",
        )
        registry.register(self._time)
        self._errors = Counter(
            "ilvr_broker_errors",
            "Calls of the broker that raised, by name and error code. overloaded, response_not_found and their like "
            "are answers; broker_unavailable is a failure.",
            labelnames=("call", "reason"),
            registry=registry,
        )
        for name, _ in inspect.getmembers(Broker, inspect.iscoroutinefunction):
            if not name.startswith("_") and name != "aclose":
                setattr(self, name, self._measuring(name, getattr(broker, name)))

    def __getattr__(self, name: str) -> Any:
        """Iterators, ``aclose``, and what a broker has beyond the Protocol."""
        return getattr(self._broker, name)

    def _measuring(self, name: str, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        observe = None if name in WAITING else self._time.of(name).observe

        async def measuring(*args: Any, **kwargs: Any) -> Any:
            started_at = time.perf_counter()
            try:
                return await call(*args, **kwargs)
            except Exception as error:
                self._errors.labels(call=name, reason=_reason(error)).inc()
                raise
            finally:
                if observe is not None:
                    observe(time.perf_counter() - started_at)

        return measuring


def _reason(error: Exception) -> str:
    return error.code if isinstance(error, IlvrError) else NAMED_ERRORS.get(type(error), OTHER_ERROR)
