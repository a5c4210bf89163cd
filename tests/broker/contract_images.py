"""How every broker keeps images, and for whom."""

import asyncio

import pytest

from contracts.broker import Broker
from contracts.errors import ImageNotFound, ResponseNotFound
from tests.broker.contract_base import SHORT_S, SOON_S, ContractBase, Heartbeats
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
