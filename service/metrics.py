"""All Prometheus metrics of the gateway. Nothing else in ``service`` creates one; docs/metrics.md lists them.

Durations are seconds on ``time.monotonic`` of this process; a timestamp from another process is never subtracted
from one taken here.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.requests import ClientDisconnect

from contracts.errors import EngineError, IlvrError
from contracts.loop_histogram import LoopHistogram
from service.errors import ERROR_BY_CODE, INTERNAL_CODE

# 5 ms to 82 s, doubling: first steps land in the middle, a stuck queue is still on the scale.
FIRST_STEP_BUCKETS_S = tuple(0.005 * 2**i for i in range(15))
# 10 ms to 5.5 min: a whole answer, of a tiny model or a large one.
RESPONSE_BUCKETS_S = tuple(0.010 * 2**i for i in range(16))
# 5 ms to 10 s: a runner joins deltas to about 20 a second, so an undisturbed stream lands near 50 ms.
GAP_BUCKETS_S = (0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.12, 0.16, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# 2 ms to 4.4 min: an error or a page at one end, a whole stream at the other.
HTTP_BUCKETS_S = tuple(0.002 * 2**i for i in range(18))

OUTCOMES = (
    "completed",
    "incomplete",
    "cancelled",
    *(code for code, error in ERROR_BY_CODE.items() if issubclass(error, EngineError)),
    INTERNAL_CODE,
)


class GatewayMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.http_requests = Counter(
            "ilvr_gateway_http_requests",
            "HTTP requests answered, by method, route template and status; 499: the client left before its answer.",
            labelnames=("method", "route", "status"),
            registry=registry,
        )
        self.http_time = Histogram(
            "ilvr_gateway_http_request_seconds",
            "From a request's head read to the last byte of its answer handed to the socket, streams included.",
            labelnames=("route",),
            buckets=HTTP_BUCKETS_S,
            registry=registry,
        )
        self.http_in_flight = Gauge(
            "ilvr_gateway_http_requests_in_flight", "HTTP requests being answered.", registry=registry
        )
        self.rejects = Counter(
            "ilvr_gateway_rejects",
            "Questions refused before a job was made of them, by error code, or client_gone.",
            labelnames=("reason",),
            registry=registry,
        )
        self.responses = Counter(
            "ilvr_gateway_responses",
            "Responses that this gateway submitted and that ended: completed, incomplete, cancelled or an error code.",
            labelnames=("outcome",),
            registry=registry,
        )
        for outcome in OUTCOMES:  # at 0 from the start: a first increase from nothing is none for Prometheus
            self.responses.labels(outcome=outcome)
        self.in_flight = Gauge(
            "ilvr_gateway_responses_in_flight",
            "Responses submitted by this gateway and not yet ended, those that wait included.",
            registry=registry,
        )
        self.waiting = Gauge(
            "ilvr_gateway_responses_waiting",
            "Of those in flight, the ones that no engine has scheduled yet.",
            registry=registry,
        )
        self.restarts = Counter(
            "ilvr_gateway_response_restarts",
            "Responses that began again because their runner was gone or handed them back.",
            registry=registry,
        )
        self.readers = Gauge("ilvr_gateway_stream_readers", "Event streams being sent (SSE).", registry=registry)
        self.image_bytes = Counter(
            "ilvr_gateway_image_bytes", "Bytes of image files that were accepted, base64 undone.", registry=registry
        )
        self.queue_time = Histogram(
            "ilvr_gateway_queue_seconds",
            "From the job submitted until its engine scheduled it, as response.in_progress says.",
            buckets=FIRST_STEP_BUCKETS_S,
            registry=registry,
        )
        self.time_to_first_step = Histogram(
            "ilvr_gateway_time_to_first_step_seconds",
            "From the job submitted to its first step seen here.",
            buckets=FIRST_STEP_BUCKETS_S,
            registry=registry,
        )
        self.text_gap = LoopHistogram(
            "ilvr_gateway_text_gap_seconds",
            "Between two text deltas of one step as they are written to a stream, so slow readers lengthen it. Runners "
            "join deltas to about 20 a second, so it is not the time of a token.",
            GAP_BUCKETS_S,
        )
        registry.register(self.text_gap)
        self.response_time = Histogram(
            "ilvr_gateway_response_seconds",
            "From the job submitted to its terminal event seen here.",
            buckets=RESPONSE_BUCKETS_S,
            registry=registry,
        )
        self.runners = Gauge(
            "ilvr_gateway_runners",
            "Runners that the broker has heard of lately, by state: ready or not_ready. Asked at each scrape.",
            labelnames=("state",),
            registry=registry,
        )
        self.broker_up = Gauge(
            "ilvr_gateway_broker_up", "1 if the broker answered at this scrape, else 0.", registry=registry
        )

    @contextmanager
    def counting_refusals(self) -> Iterator[None]:
        """Around everything that comes before a job is submitted: whatever is raised there is the request's end."""
        try:
            yield
        except IlvrError as error:
            self.rejects.labels(reason=error.code).inc()
            raise
        except ClientDisconnect:
            self.rejects.labels(reason="client_gone").inc()
            raise
        except Exception:
            self.rejects.labels(reason=INTERNAL_CODE).inc()
            raise

    def see_runners(self, num_ready: int, num_known: int) -> None:
        """What the broker said just now."""
        self.broker_up.set(1)
        self.runners.labels(state="ready").set(num_ready)
        self.runners.labels(state="not_ready").set(num_known - num_ready)

    def see_no_broker(self) -> None:
        """Nothing is known of the runners, which is not the same as that there are none."""
        self.broker_up.set(0)
        self.runners.clear()
