"""The measured broker does what the one inside it does, and counts what it was asked."""

from collections.abc import AsyncIterator

import pytest
from prometheus_client import CollectorRegistry

from broker.embedded import EmbeddedBroker
from broker.limits import BrokerLimits
from broker.measured import measured
from contracts.broker import Broker
from contracts.errors import BrokerUnavailable, Overloaded, ResponseNotFound
from tests.broker.samples import done, image, job


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
async def broker(registry: CollectorRegistry) -> AsyncIterator[Broker]:
    broker = measured(EmbeddedBroker(BrokerLimits(max_waiting=1)), registry, max_waiting=1)
    yield broker
    await broker.aclose()


async def test_every_call_of_the_protocol_is_measured_and_no_other(broker: Broker, registry: CollectorRegistry) -> None:
    await broker.aclose()
    waiting = {"take", "aclose", "follow", "cancellations"}
    calls = {name for name in vars(Broker) if not name.startswith("_")} - waiting
    (times,) = (metric for metric in registry.collect() if metric.name == "ilvr_broker_call_seconds")
    assert {sample.labels["call"] for sample in times.samples} == calls


async def test_calls_are_timed(broker: Broker, registry: CollectorRegistry) -> None:
    assert registry.get_sample_value("ilvr_broker_max_waiting") == 1
    await broker.put_image(image(b"x"))
    await broker.submit(job("resp_a"))
    (lease,) = await broker.take("r1", room=1)
    await broker.publish(lease, [done(lease.job)])
    assert [event async for event in broker.follow("resp_a")]
    for call, count in {"put_image": 1, "submit": 1, "publish": 1, "cancel": 0}.items():
        assert registry.get_sample_value("ilvr_broker_call_seconds_count", {"call": call}) == count
    for call in ("take", "follow"):  # they wait, by design
        assert registry.get_sample_value("ilvr_broker_call_seconds_count", {"call": call}) is None


async def test_errors_are_counted_by_code(broker: Broker, registry: CollectorRegistry) -> None:
    def count(call: str, reason: str) -> float | None:
        return registry.get_sample_value("ilvr_broker_errors_total", {"call": call, "reason": reason})

    with pytest.raises(ResponseNotFound):
        await broker.cancel("resp_none")
    await broker.submit(job("resp_a"))
    with pytest.raises(Overloaded):
        await broker.submit(job("resp_b"))
    with pytest.raises(ValueError, match="room"):
        await broker.take("r1", room=0)
    assert count("cancel", "response_not_found") == 1
    assert count("submit", "overloaded") == 1
    assert count("take", "internal_error") == 1
    assert registry.get_sample_value("ilvr_broker_call_seconds_count", {"call": "submit"}) == 2


async def test_a_broker_that_cannot_be_reached(registry: CollectorRegistry) -> None:
    class Away(EmbeddedBroker):
        async def submit(self, *args: object, **kwargs: object) -> str:
            raise BrokerUnavailable("away")

    broker = measured(Away(), registry, max_waiting=1)
    with pytest.raises(BrokerUnavailable):
        await broker.submit(job("resp_a"))
    labels = {"call": "submit", "reason": "broker_unavailable"}
    assert registry.get_sample_value("ilvr_broker_errors_total", labels) == 1
