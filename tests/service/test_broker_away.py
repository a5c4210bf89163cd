"""When the broker cannot be reached, or has lost a response: an end that says so, never silence."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import httpx
import pytest

from broker.embedded import EmbeddedBroker
from broker.limits import BrokerLimits
from contracts.errors import BrokerUnavailable, IlvrError, ResponseNotFound
from contracts.events import Event
from contracts.jobs import Idempotency, Job
from service import disconnect
from tests.scripted_runner import ScriptedRunner
from tests.service.conftest import GRACE_S, until
from tests.service.helpers import check_error, frames, live_frames

ASK = {"question": "?"}
AWAY = BrokerUnavailable("The broker cannot be reached.")


class FaultyBroker(EmbeddedBroker):
    """``error`` is raised by every call that a gateway makes, and out of what is being followed."""

    def __init__(self) -> None:
        super().__init__(BrokerLimits(max_waiting=2))
        self.error: IlvrError | None = None
        self.num_failed_cancels = 0

    async def submit(self, job: Job, *, idempotency: Idempotency | None = None, max_open: int | None = None) -> str:
        self._fail()
        return await super().submit(job, idempotency=idempotency, max_open=max_open)

    async def follow(self, response_id: str, *, starting_after: int = -1, deltas: bool = True) -> AsyncIterator[Event]:
        self._fail()
        async for event in super().follow(response_id, starting_after=starting_after, deltas=deltas):
            yield event
            while self.error is None and event is self._log(response_id).events[-1]:  # nothing came after it yet
                if self._log(response_id).is_closed:
                    return
                await asyncio.sleep(0.005)
            self._fail()

    async def events(self, response_id: str) -> Sequence[Event]:
        self._fail()
        return await super().events(response_id)

    async def note_reading(self, response_ids: Sequence[str], *, reader: str, for_s: float) -> None:
        self._fail()
        await super().note_reading(response_ids, reader=reader, for_s=for_s)

    async def cancel_unread(self, response_id: str, *, reader: str) -> float:
        self.num_failed_cancels += self.error is not None
        self._fail()
        return await super().cancel_unread(response_id, reader=reader)

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error


@pytest.fixture
async def broker() -> AsyncIterator[FaultyBroker]:
    broker = FaultyBroker()
    yield broker
    broker.error = None
    await broker.aclose()


@pytest.mark.parametrize("error", [AWAY, ResponseNotFound("No response.")])
async def test_a_stream_ends_with_a_failure_of_its_own(
    error: IlvrError, live: httpx.AsyncClient, broker: FaultyBroker, runner: ScriptedRunner
) -> None:
    """Unreachable, or started anew without its memory: the next number, retryable, and no event after it."""
    runner.pause()
    async with live.stream("POST", "/v1/reason", json={**ASK, "stream": True, "metadata": {"k": "v"}}) as answer:
        events = live_frames(answer)
        first = await anext(events)
        broker.error = error
        (last,) = [event async for event in events]
    assert last.event == "response.failed"
    assert (last.data["error"]["code"], last.data["error"]["retryable"]) == ("broker_unavailable", True)
    assert last.data["sequence_number"] == first.data["sequence_number"] + 1
    response = last.data["response"]
    assert (response["id"], response["status"]) == (first.data["response_id"], "failed")
    assert response["metadata"] == {"k": "v"}


async def test_a_resumed_stream_goes_on_counting(
    live: httpx.AsyncClient, broker: FaultyBroker, runner: ScriptedRunner
) -> None:
    response_id = (await live.post("/v1/reason", json=ASK)).json()["id"]
    whole = frames((await live.get(f"/v1/reason/{response_id}/events")).text)

    async def follow(response_id: str, *, starting_after: int = -1, deltas: bool = True) -> AsyncIterator[Event]:
        raise AWAY
        yield

    broker.follow = follow  # type: ignore[method-assign]
    (last,) = frames((await live.get(f"/v1/reason/{response_id}/events?starting_after=5")).text)
    assert (last.event, last.data["sequence_number"]) == ("response.failed", 6)
    assert last.data["sequence_number"] < len(whole)


@pytest.mark.parametrize("error", [AWAY, ResponseNotFound("No response.")])
async def test_a_client_that_waits_gets_503(
    error: IlvrError, live: httpx.AsyncClient, broker: FaultyBroker, runner: ScriptedRunner
) -> None:
    runner.pause()
    waiting = asyncio.create_task(live.post("/v1/reason", json=ASK))
    await until(lambda: runner.num_working == 1)
    await asyncio.sleep(0.02)
    broker.error = error
    answer = await waiting
    check_error(answer, 503, "broker_unavailable")
    assert int(answer.headers["retry-after"]) >= 1


async def test_what_cannot_be_submitted_gets_503(
    live: httpx.AsyncClient, broker: FaultyBroker, runner: ScriptedRunner
) -> None:
    broker.error = AWAY
    for stream in (False, True):
        answer = await live.post("/v1/reason", json={**ASK, "stream": stream})
        check_error(answer, 503, "broker_unavailable")
        assert answer.headers["retry-after"] == "5"


async def test_what_nobody_reads_is_cancelled_when_the_broker_is_back(
    live: httpx.AsyncClient, broker: FaultyBroker, runner: ScriptedRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disconnect, "ASK_AGAIN_S", 0.05)
    runner.pause()
    async with live.stream("POST", "/v1/reason", json={**ASK, "stream": True}) as answer:
        await anext(live_frames(answer))
        await until(lambda: runner.num_working == 1)
    await asyncio.sleep(GRACE_S / 2)
    broker.error = AWAY
    await until(lambda: broker.num_failed_cancels > 1)
    assert runner.num_working == 1
    broker.error = None
    await until(lambda: runner.num_working == 0)
