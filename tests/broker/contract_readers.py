"""How every broker knows whether anybody reads a response."""

import asyncio

import pytest

from contracts.broker import Broker
from contracts.errors import ResponseNotFound
from tests.broker.contract_base import SOON_S, ContractBase
from tests.broker.samples import done, job, next_cancellation, read, types


class ReadersContract(ContractBase):
    async def test_what_nobody_reads_is_cancelled(self, broker: Broker) -> None:
        await broker.submit(job("resp_a"))
        assert await broker.cancel_unread("resp_a", reader="g1") == 0
        assert types(await read(broker, "resp_a"))[-1] == "cancelled"
        assert await broker.cancel_unread("resp_a", reader="g1") == 0
        with pytest.raises(ResponseNotFound):
            await broker.cancel_unread("resp_x", reader="g1")

    async def test_what_another_gateway_reads_is_not(self, broker: Broker) -> None:
        for response_id in ("resp_a", "resp_b"):
            await broker.submit(job(response_id))
        await broker.note_reading(["resp_a", "resp_x", "resp_b"], reader="g2", for_s=30.0)
        assert 20 < await broker.cancel_unread("resp_a", reader="g1") <= 30
        assert types(await broker.events("resp_a")) == ["created", "queued"]
        assert await broker.cancel_unread("resp_b", reader="g2") == 0  # its own word does not keep it from asking
        assert types(await broker.events("resp_b"))[-1] == "cancelled"

    async def test_a_later_word_replaces_an_earlier_one(self, broker: Broker) -> None:
        await broker.submit(job("resp_a"))
        await broker.note_reading(["resp_a"], reader="g2", for_s=30.0)
        await broker.note_reading(["resp_a"], reader="g3", for_s=20.0)
        await broker.note_reading(["resp_a"], reader="g2", for_s=0.0)
        assert 10 < await broker.cancel_unread("resp_a", reader="g1") <= 20
        await broker.note_reading(["resp_a"], reader="g3", for_s=0.0)
        assert await broker.cancel_unread("resp_a", reader="g1") == 0
        assert types(await broker.events("resp_a"))[-1] == "cancelled"

    async def test_a_word_is_worth_as_long_as_it_says(self, broker: Broker) -> None:
        """A gateway that dies says nothing more."""
        await broker.submit(job("resp_a"))
        await broker.note_reading(["resp_a"], reader="g2", for_s=0.3)
        async with asyncio.timeout(SOON_S):
            while left_s := await broker.cancel_unread("resp_a", reader="g1"):
                assert left_s <= 0.3
                await asyncio.sleep(left_s)
        assert types(await broker.events("resp_a"))[-1] == "cancelled"

    async def test_the_runner_hears_of_it(self, broker: Broker) -> None:
        lease = await self.leased(broker)
        assert await broker.cancel_unread("resp_a", reader="g1") == 0
        heard = broker.cancellations("r1")
        assert await asyncio.wait_for(next_cancellation(heard), SOON_S) == "resp_a"
        await broker.publish(lease, [done(lease.job)])

    async def test_what_has_ended_stays_as_it_is(self, broker: Broker) -> None:
        lease = await self.leased(broker)
        await broker.publish(lease, [done(lease.job)])
        await broker.note_reading(["resp_a"], reader="g2", for_s=30.0)
        assert await broker.cancel_unread("resp_a", reader="g1") == 0
        assert types(await broker.events("resp_a"))[-1] == "completed"
