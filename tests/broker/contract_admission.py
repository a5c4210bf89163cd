"""Whom every broker lets in, and in which order they are served."""

import asyncio
from contextlib import suppress

import pytest

from broker.limits import BrokerLimits
from contracts.broker import Broker
from contracts.errors import IdempotencyConflict, Overloaded, RateLimited, ResponseNotFound
from contracts.jobs import Idempotency, RateLimit
from tests.broker.contract_base import LIMITS, SOON_S, ContractBase, MakeBroker
from tests.broker.contract_endings import take_all
from tests.broker.samples import done, image, job, status, types


def key(name: str, body: str) -> Idempotency:
    return Idempotency(key=name, body_sha256=body)


class AdmissionContract(ContractBase):
    async def test_too_many_waiting_jobs_are_refused_and_nothing_is_kept(self, broker: Broker) -> None:
        for index in range(LIMITS.max_waiting):
            await broker.submit(job(f"resp_{index}"))
        with pytest.raises(Overloaded):
            await broker.submit(job("resp_over"))
        with pytest.raises(ResponseNotFound):
            await broker.job("resp_over")
        assert len(await broker.take("r1", room=9)) == LIMITS.max_waiting
        await broker.submit(job("resp_after"))

    async def test_the_room_of_a_runner_that_is_not_ready_does_not_count(self, roomy: Broker) -> None:
        for runner_id in ("r1", "r2"):
            await roomy.heartbeat(status(runner_id))
        await self.leased(roomy, "resp_1", "r1")
        await roomy.submit(job("resp_2"))
        await roomy.take("r2", room=4)
        await roomy.submit(job("resp_3"))
        assert types(await roomy.events("resp_3")) == ["created"]  # r2 has room for it
        await roomy.heartbeat(status("r2", is_ready=False))
        await roomy.submit(job("resp_4"))
        assert types(await roomy.events("resp_4")) == ["created", "queued"]
        await take_all(roomy, "r1", 2)

    async def test_who_fills_the_queue_does_not_shut_out_others(self, make_broker: MakeBroker) -> None:
        broker = await make_broker(BrokerLimits(max_waiting=16, max_waiting_bytes=1000))
        for index in range(16):
            await broker.submit(job(f"resp_{index}", owner="many"))
        for index in range(100):
            with pytest.raises(Overloaded):
                await broker.submit(job(f"resp_over{index}", owner="many"))
        await broker.submit(job("resp_few", owner="few"))
        with pytest.raises(Overloaded):
            await broker.submit(job("resp_few2", owner="few"))
        await broker.submit(job("resp_other", owner="other"))
        with pytest.raises(Overloaded):
            await broker.submit(job("resp_third", owner="third"))  # two places are kept, and they are taken
        taken = [lease.job.response_id for lease in await take_all(broker, "r1", 4)]
        assert {"resp_few", "resp_other"} < set(taken)
        await broker.submit(job("resp_third", owner="third"))
        await broker.aclose()

    async def test_who_fills_the_queue_with_bytes_does_not_shut_out_others(self, make_broker: MakeBroker) -> None:
        """Nor can the others fill it further than by an eighth."""
        broker = await make_broker(BrokerLimits(max_waiting=100, max_waiting_bytes=800))
        for index in range(2):
            await broker.submit(job(f"resp_{index}", owner="many", question="x" * 400))
        with pytest.raises(Overloaded):
            await broker.submit(job("resp_over", owner="many", question="x"))
        with pytest.raises(Overloaded):
            await broker.submit(job("resp_big", owner="few", question="x" * 101))
        await broker.check_room(100, owner="few")
        await broker.submit(job("resp_few", owner="few", question="x" * 60))
        with pytest.raises(Overloaded):
            await broker.submit(job("resp_few2", owner="few", question="x"))
        await broker.submit(job("resp_other", owner="other", question="x" * 40))
        with pytest.raises(Overloaded):
            await broker.check_room(1, owner="third")  # a hundred bytes are kept, and they are taken
        taken = [lease.job.response_id for lease in await take_all(broker, "r1", 4)]
        assert {"resp_few", "resp_other"} < set(taken)
        await broker.check_room(800, owner="many")
        await broker.aclose()

    async def test_too_many_waiting_bytes_are_refused(self, make_broker: MakeBroker) -> None:
        broker = await make_broker(BrokerLimits(max_waiting=100, max_waiting_bytes=1000))
        stored = image(b"x" * 400)
        await broker.put_image(stored)
        await broker.submit(job("resp_a", images=(stored.ref,)))
        await broker.check_room(550)
        with pytest.raises(Overloaded):
            await broker.check_room(650)
        await broker.submit(job("resp_b", images=(stored.ref,)))  # an image counts for every job that has it
        for refused in (job("resp_c", images=(stored.ref,)), job("resp_c", question="ß" * 150)):
            with pytest.raises(Overloaded) as error:
                await broker.submit(refused)
            assert 1 <= error.value.retry_after_s <= 60
        with pytest.raises(ResponseNotFound):
            await broker.job("resp_c")
        await broker.submit(job("resp_c", question="ß" * 50))
        await broker.cancel("resp_a")
        await broker.check_room(450)
        assert len(await take_all(broker, "r1", 2)) == 2
        await broker.check_room(1000)
        await broker.aclose()

    async def test_how_long_to_wait_comes_from_how_fast_jobs_end(self, make_broker: MakeBroker) -> None:
        broker = await make_broker(BrokerLimits(max_waiting=40))
        for turn in range(60):
            await broker.submit(job(f"resp_{turn}"))
            if turn == 39:
                with pytest.raises(Overloaded) as error:
                    await broker.submit(job("resp_over"))
                assert error.value.retry_after_s == 5  # nothing has ended yet
                for lease in await take_all(broker, "r1", 20):
                    await broker.publish(lease, [done(lease.job)])
        with pytest.raises(Overloaded) as error:
            await broker.submit(job("resp_over"))
        assert 2 <= error.value.retry_after_s <= 4  # forty wait, twenty ended, within a second or two
        await broker.aclose()

    async def test_room_is_asked_for_before_a_job_is_made(self, broker: Broker) -> None:
        await broker.check_room(10)
        for index in range(LIMITS.max_waiting):
            await broker.submit(job(f"resp_{index}"), idempotency=key("k", "a") if index == 0 else None)
        with pytest.raises(Overloaded) as error:
            await broker.check_room(10)
        assert 1 <= error.value.retry_after_s <= 60
        with pytest.raises(Overloaded):
            await broker.check_room(10, idempotency_key="other")
        await broker.check_room(10, owner="b")  # a place is kept for one of whom nothing waits
        await broker.submit(job("resp_b", owner="b"))
        for owner in ("b", "c"):
            with pytest.raises(Overloaded):
                await broker.check_room(10, owner=owner, idempotency_key="k")
        await broker.check_room(10, idempotency_key="k")
        assert await broker.submit(job("resp_new"), idempotency=key("k", "a")) == "resp_0"

    async def test_one_key_and_body_stand_for_one_response(self, broker: Broker) -> None:
        assert await broker.submit(job("resp_a", owner="o"), idempotency=key("k", "body")) == "resp_a"
        assert await broker.submit(job("resp_b", owner="o"), idempotency=key("k", "body")) == "resp_a"
        with pytest.raises(ResponseNotFound):
            await broker.job("resp_b")
        with pytest.raises(IdempotencyConflict):
            await broker.submit(job("resp_c", owner="o"), idempotency=key("k", "other"))
        assert await broker.submit(job("resp_d", owner="p"), idempotency=key("k", "other")) == "resp_d"
        (lease, _) = await take_all(broker, "r1", 2)
        await broker.publish(lease, [done(lease.job)])
        assert await broker.submit(job("resp_e", owner="o"), idempotency=key("k", "body")) == "resp_a"
        with pytest.raises(IdempotencyConflict):
            await broker.submit(job("resp_f", owner="o"), idempotency=key("k", "other"))

    async def test_twenty_at_once_with_one_key_make_one_job(self, roomy: Broker) -> None:
        found = await asyncio.gather(
            *(roomy.submit(job(f"resp_{index}"), idempotency=key("k", "body")) for index in range(20))
        )
        assert len(set(found)) == 1
        (lease,) = await roomy.take("r1", room=30)
        assert lease.job.response_id == found[0]
        for index in range(20):
            if f"resp_{index}" != found[0]:
                with pytest.raises(ResponseNotFound):
                    await roomy.job(f"resp_{index}")

    async def test_a_refused_job_does_not_use_up_its_key(self, broker: Broker) -> None:
        for index in range(LIMITS.max_waiting):
            await broker.submit(job(f"resp_{index}"))
        with pytest.raises(Overloaded):
            await broker.submit(job("resp_over"), idempotency=key("k", "a"))
        await broker.cancel("resp_0")
        assert await broker.submit(job("resp_b"), idempotency=key("k", "b")) == "resp_b"

    async def test_an_owner_has_so_many_open_jobs(self, roomy: Broker) -> None:
        for response_id in ("resp_a", "resp_b"):
            await roomy.submit(job(response_id, owner="o"), idempotency=key(response_id, "x"), max_open=2)
        (lease,) = await roomy.take("r1", room=1)
        with pytest.raises(RateLimited) as error:
            await roomy.submit(job("resp_c", owner="o"), max_open=2)
        assert error.value.retry_after_s >= 1
        with pytest.raises(ResponseNotFound):
            await roomy.job("resp_c")
        assert await roomy.submit(job("resp_d", owner="o"), idempotency=key("resp_a", "x"), max_open=2) == "resp_a"
        await roomy.submit(job("resp_other", owner="p"), max_open=2)
        await roomy.publish(lease, [done(lease.job)])
        await roomy.submit(job("resp_c", owner="o"), max_open=2)

    async def test_owners_take_turns(self, roomy: Broker) -> None:
        names = [f"resp_{index}" for index in range(20)]
        for name in names:
            await roomy.submit(job(name, owner="many"))
        await roomy.submit(job("resp_one", owner="few"))
        taken = [(await take_all(roomy, "r1", 1))[0].job.response_id for _ in range(21)]
        assert "resp_one" in taken[:3]
        assert [name for name in taken if name != "resp_one"] == names

    async def test_a_bucket_holds_so_many_tokens(self, broker: Broker) -> None:
        limit = RateLimit(per_minute=2.0, burst=3)
        for _ in range(3):
            await broker.spend("a", limit)
        with pytest.raises(RateLimited) as error:
            await broker.spend("a", limit)
        assert 20 <= error.value.retry_after_s <= 30  # a token comes back in 30 s
        await broker.spend("b", limit)

    async def test_tokens_are_taken_together_or_not_at_all(self, broker: Broker) -> None:
        limit = RateLimit(per_minute=2.0, burst=3)
        await broker.spend("a", limit, count=2)
        with pytest.raises(RateLimited) as error:
            await broker.spend("a", limit, count=3)
        assert 50 <= error.value.retry_after_s <= 60  # two more in a minute
        await broker.spend("a", limit, count=1)

    async def test_a_bucket_is_refilled(self, broker: Broker) -> None:
        limit = RateLimit(per_minute=300.0, burst=2)  # one in 0.2 s
        spent_at: list[float] = []
        async with asyncio.timeout(SOON_S):
            while len(spent_at) < 6:
                with suppress(RateLimited):
                    await broker.spend("a", limit)
                    spent_at.append(asyncio.get_running_loop().time())
                await asyncio.sleep(0.02)
        assert spent_at[-1] - spent_at[0] > 0.7  # two at once, then four times 0.2 s, less what rounding takes
