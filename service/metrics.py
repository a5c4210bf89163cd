"""All Prometheus metrics of the gateway. Nothing else in ``service`` creates one.

Durations are seconds on ``time.monotonic`` of this process; a timestamp from another process is never subtracted
from one taken here.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.requests import ClientDisconnect

from contracts.errors import IlvrError
from service.errors import INTERNAL_CODE

# 5 ms to 10.24 s, doubling: first steps land in the middle, a stuck queue is still on the scale.
FIRST_STEP_BUCKETS_S = tuple(0.005 * 2**i for i in range(12))
# 10 ms to 5.5 min: a whole answer, of a tiny model or a large one.
RESPONSE_BUCKETS_S = tuple(0.010 * 2**i for i in range(16))


class GatewayMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "gateway_requests",
            "POST /v1/reason that ended, by outcome: 'ok', 'incomplete', 'cancelled' or an error code.",
            labelnames=("outcome",),
            registry=registry,
        )
        self.inflight = Gauge(
            "gateway_inflight_requests",
            "Responses submitted by this gateway and not yet ended.",
            registry=registry,
        )
        self.readers = Gauge(
            "gateway_stream_readers",
            "Event streams being sent.",
            registry=registry,
        )
        self.time_to_first_step = Histogram(
            "gateway_time_to_first_step_seconds",
            "From the job submitted to its first step seen here.",
            buckets=FIRST_STEP_BUCKETS_S,
            registry=registry,
        )
        self.response_time = Histogram(
            "gateway_response_seconds",
            "From the job submitted to its terminal event.",
            buckets=RESPONSE_BUCKETS_S,
            registry=registry,
        )

    @contextmanager
    def counting_refusals(self) -> Iterator[None]:
        """Around everything that comes before a job is submitted: whatever is raised there is the request's end."""
        try:
            yield
        except IlvrError as error:
            self.requests.labels(outcome=error.code).inc()
            raise
        except ClientDisconnect:
            self.requests.labels(outcome="cancelled").inc()
            raise
        except Exception:
            self.requests.labels(outcome=INTERNAL_CODE).inc()
            raise
