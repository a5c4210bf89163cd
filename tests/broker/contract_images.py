"""How every broker keeps images, and for whom."""

import asyncio

import pytest

from broker.limits import BrokerLimits
from contracts.broker import Broker
from contracts.errors import ImageNotFound, Overloaded, ResponseNotFound
from tests.broker.contract_base import SHORT_S, SOON_S, ContractBase, Heartbeats, MakeBroker
from tests.broker.samples import done, image, job


class ImagesContract(ContractBase):
    async def test_an_image_comes_back_as_it_was_put(self, broker: Broker) -> None:
        stored = image(b"picture")
        await broker.put_image(stored)
        await broker.put_image(stored)
        assert await broker.get_image(stored.ref.id) == stored

    async def test_an_unknown_image_is_refused_everywhere(self, broker: Broker) -> None:
        ref = image(b"never put").ref
        with pytest.raises(ImageNotFound):
            await broker.get_image(ref.id)
        with pytest.raises(ImageNotFound):
            await broker.submit(job("resp_a", images=(ref,)))
        with pytest.raises(ResponseNotFound):
            await broker.job("resp_a")

    async def test_an_image_is_named_without_its_bytes(self, broker: Broker) -> None:
        stored = image(b"picture")
        await broker.put_image(stored, owner="a")
        assert await broker.image_ref(stored.ref.id, owner="a") == stored.ref
        assert await broker.image_ref(stored.ref.id) == stored.ref

    async def test_an_owner_sees_the_images_that_it_put(self, broker: Broker) -> None:
        stored = image(b"picture")
        await broker.put_image(stored, owner="a")
        for method in (broker.get_image, broker.image_ref):
            with pytest.raises(ImageNotFound):
                await method(stored.ref.id, owner="b")
            with pytest.raises(ImageNotFound):
                await method(stored.ref.id, owner="")
        await broker.put_image(stored, owner="b")
        for owner in ("a", "b", None):
            assert await broker.get_image(stored.ref.id, owner=owner) == stored

    async def test_the_least_recently_used_image_goes_first(self, make_broker: MakeBroker) -> None:
        broker = await make_broker(BrokerLimits(max_image_bytes=30))
        first, second, third, fourth = (image(bytes([n]) * 10) for n in range(4))
        for stored in (first, second, third):
            await broker.put_image(stored)
            await asyncio.sleep(0.005)  # Redis counts milliseconds
        await broker.get_image(first.ref.id)
        await broker.put_image(fourth)
        with pytest.raises(ImageNotFound):
            await broker.get_image(second.ref.id)
        for kept in (first, third, fourth):
            assert await broker.get_image(kept.ref.id) == kept
        await broker.aclose()

    async def test_an_image_expires_when_it_is_not_used(self, make_broker: MakeBroker) -> None:
        broker = await make_broker(BrokerLimits(image_ttl_s=0.5))
        stored = image(b"x")
        await broker.put_image(stored)
        uses = (broker.get_image(stored.ref.id), broker.image_ref(stored.ref.id), broker.put_image(stored))
        for use in uses:
            await asyncio.sleep(0.3)
            await use
        await asyncio.sleep(0.6)
        with pytest.raises(ImageNotFound):
            await broker.get_image(stored.ref.id)
        await broker.aclose()

    async def test_images_of_open_jobs_stay_whatever_happens(self, make_broker: MakeBroker) -> None:
        broker = await make_broker(BrokerLimits(max_image_bytes=20, image_ttl_s=0.5))
        pinned, other, big = image(b"p" * 15), image(b"o" * 5), image(b"b" * 20)
        await broker.put_image(pinned)
        await broker.put_image(other)
        for name in ("resp_a", "resp_b"):
            await broker.submit(job(name, images=(pinned.ref,)))
        with pytest.raises(Overloaded):
            await broker.put_image(big)
        assert await broker.get_image(other.ref.id) == other  # refused means: nothing was evicted
        await asyncio.sleep(0.6)
        with pytest.raises(ImageNotFound):
            await broker.get_image(other.ref.id)  # which was not pinned
        await broker.cancel("resp_a")
        assert await broker.get_image(pinned.ref.id) == pinned  # resp_b still needs it
        await broker.cancel("resp_b")
        await broker.put_image(big)
        with pytest.raises(ImageNotFound):
            await broker.get_image(pinned.ref.id)
        await broker.aclose()

    async def test_whose_open_jobs_fill_the_store_does_not_shut_out_others(self, make_broker: MakeBroker) -> None:
        broker = await make_broker(BrokerLimits(max_image_bytes=80, max_waiting=100))
        full, more, first, second, third = (image(bytes([n]) * size) for n, size in enumerate((80, 1, 6, 4, 5)))
        await broker.put_image(full, owner="many")
        await broker.submit(job("resp_full", owner="many", images=(full.ref,)))
        with pytest.raises(Overloaded):
            await broker.put_image(more, owner="many")
        with pytest.raises(Overloaded):
            await broker.put_image(image(b"b" * 11), owner="few")  # ten bytes are kept
        await broker.put_image(first, owner="few")
        await broker.submit(job("resp_few", owner="few", images=(first.ref,)))
        with pytest.raises(Overloaded):
            await broker.put_image(second, owner="few")  # of whom one is worked on by now
        await broker.put_image(second, owner="other")
        await broker.submit(job("resp_other", owner="other", images=(second.ref,)))
        with pytest.raises(Overloaded):
            await broker.put_image(third, owner="third")
        await broker.cancel("resp_few")
        await broker.put_image(third, owner="third")
        for kept in (full, second, third):
            assert await broker.get_image(kept.ref.id) == kept
        await broker.aclose()

    async def test_one_image_takes_the_place_of_thousands(self, make_broker: MakeBroker) -> None:
        num_small = 5000  # more than Lua's stack holds
        broker = await make_broker(BrokerLimits(max_image_bytes=4 * num_small))
        small = [image(index.to_bytes(4, "big")) for index in range(num_small)]
        await asyncio.gather(*(broker.put_image(stored) for stored in small))
        big = image(b"b" * 4 * num_small)
        await broker.put_image(big)
        assert await broker.get_image(big.ref.id) == big
        with pytest.raises(ImageNotFound):
            await broker.get_image(small[0].ref.id)
        await broker.aclose()

    async def test_a_runner_that_had_an_image_gets_the_next_question_on_it(self, roomy: Broker) -> None:
        async with Heartbeats(roomy, "r1"), Heartbeats(roomy, "r2"):
            takes = {name: asyncio.create_task(roomy.take(name, room=4)) for name in ("r1", "r2")}
            await asyncio.sleep(SHORT_S)
            took: dict[str, set[str]] = {}
            for index in range(9):
                stored = image(bytes([index % 3]))
                await roomy.put_image(stored)
                await roomy.submit(job(f"resp_{index}", images=(stored.ref,)))
                await asyncio.wait(takes.values(), timeout=SOON_S, return_when=asyncio.FIRST_COMPLETED)
                (name,) = (name for name, take in takes.items() if take.done())
                took.setdefault(stored.ref.id, set()).add(name)
                for lease in takes[name].result():
                    await roomy.publish(lease, [done(lease.job)])
                takes[name] = asyncio.create_task(roomy.take(name, room=4))
                await asyncio.sleep(SHORT_S)
            for take in takes.values():
                take.cancel()
            await asyncio.wait(takes.values())
        assert [len(names) for names in took.values()] == [1, 1, 1]

    async def test_a_preference_starves_nobody(self, roomy: Broker) -> None:
        """The runner that had the image has no room; the other one takes the job."""
        stored = image(b"picture")
        await roomy.put_image(stored)
        async with Heartbeats(roomy, "r1"), Heartbeats(roomy, "r2"):
            for name, response_id in (("r1", "resp_a"), ("r2", "resp_b")):
                await roomy.submit(job(response_id, images=(stored.ref,)))
                (lease,) = await asyncio.wait_for(roomy.take(name, room=1), SOON_S)
                assert lease.job.response_id == response_id
