"""The runner between the real embedded broker and a scripted engine: every response comes to exactly one end."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from io import BytesIO
from typing import Any

import pytest
from PIL import Image

from broker.embedded import EmbeddedBroker
from broker.limits import BrokerLimits
from contracts.broker import LeaseLost, RunnerStatus
from contracts.errors import BadSettings, GenerationFailed, ImageNotFound
from contracts.events import Event, Terminal
from contracts.jobs import ImageRef, Job, Lease, Sampling, StoredImage
from contracts.responses import LatentStep, TextStep
from model_runner.prompt import PromptBuilder
from tests.broker.samples import read, status
from tests.model_runner.scripted_engine import HOLD, PROMPT, delta
from tests.model_runner.world import ANSWER, HELD, PAD, SOON_S, START, Start, World, check, ids


def picture() -> StoredImage:
    file = BytesIO()
    Image.new("RGBA", (84, 84), (200, 0, 0, 0)).save(file, "PNG")
    return StoredImage(ref=ImageRef(id="img_a", width=84, height=84), media_type="image/png", data=file.getvalue())


async def test_answers(start: Start, maze_prompts: PromptBuilder) -> None:
    async with start(ANSWER) as world:
        image = picture()
        await world.broker.put_image(image)
        await world.submit("resp_a", question="Which way?", images=(image.ref,), metadata={"k": "v"})
        response = await world.ended("resp_a")
    (request,) = world.engine.requests
    assert request.prompt_ids == maze_prompts.build("Which way?", num_images=1)
    assert [(one.id, one.rgb.getpixel((0, 0))) for one in request.images] == [("img_a", (200, 0, 0))]
    assert (request.sampling.max_tokens, request.sampling.temperature, request.latent_mode) == (512, 0.0, "on")
    assert (response.status, response.finish_reason, response.answer) == ("completed", "stop", "RD")
    assert response.metadata == {"k": "v"}
    assert [type(step) for step in response.steps] == [TextStep, LatentStep, TextStep]
    assert response.usage.input_tokens == PROMPT.num_tokens
    assert response.usage.latent_steps == 8
    assert not world.engine.open
    assert world.count("ilvr_runner_responses_total", outcome="completed") == 1
    assert world.count("ilvr_runner_latent_steps_total") == 8
    assert world.count("ilvr_runner_latent_blocks_total", exit="full") == 1
    assert world.count("ilvr_runner_images_encoded_total") == 5
    assert world.count("ilvr_runner_preemptions_total") == 3
    assert world.count("ilvr_runner_input_tokens_total") == 30
    assert world.count("ilvr_runner_image_tokens_total") == 9
    assert world.count("ilvr_runner_cached_tokens_total") == 4
    assert world.count("ilvr_runner_response_steps_sum") == 3
    assert world.count("ilvr_runner_latent_block_seconds_count") == 1
    assert world.count("ilvr_runner_queue_seconds_count") == world.count("ilvr_runner_response_seconds_count") == 1


async def test_what_the_caller_asked_reaches_the_engine(start: Start) -> None:
    async with start(ANSWER) as world:
        sampling = Sampling(max_tokens=9, temperature=0.5, seed=3)
        await world.submit("resp_a", sampling=sampling, latent_mode="off")
        await world.ended("resp_a")
    (request,) = world.engine.requests
    assert (request.sampling.max_tokens, request.sampling.temperature, request.sampling.seed) == (9, 0.5, 3)
    assert request.latent_mode == "off"
    assert request.images == ()


async def test_the_room_that_is_left_counts_images_as_their_patches(start: Start, maze_prompts: PromptBuilder) -> None:
    """84 x 84 pixels are 9 tokens: 8 more than the one that stands for the image."""
    num_tokens = len(maze_prompts.build("?", num_images=1)) + 8
    async with start(ANSWER, context_tokens=num_tokens + 5) as world:
        image = picture()
        await world.broker.put_image(image)
        await world.submit("resp_a", images=(image.ref,))
        await world.ended("resp_a")
    assert world.engine.requests[0].sampling.max_tokens == 5


async def test_length_is_incomplete(start: Start) -> None:
    async with start([delta(ids("Go")), delta([START, PAD], "length")]) as world:
        await world.submit("resp_a")
        response = await world.ended("resp_a")
    assert (response.status, response.finish_reason) == ("incomplete", "length")
    assert response.steps[1].exit == "cut"


async def test_a_stop_string_frees_the_engine_before_it_is_done(start: Start) -> None:
    async with start([delta(ids("one. two")), HOLD, *ANSWER]) as world:
        await world.submit("resp_a", sampling=Sampling(stop=(". ",)))
        response = await world.ended("resp_a")
        assert not world.engine.open
    assert (response.status, response.finish_reason) == ("completed", "stop")
    assert response.steps == (TextStep(index=0, text="one"),)


async def test_a_stop_string_in_the_last_delta_is_a_stop_not_a_length(start: Start) -> None:
    async with start([delta(ids("one. two"), "length")]) as world:
        await world.submit("resp_a", sampling=Sampling(stop=(". ",)))
        assert (await world.ended("resp_a")).finish_reason == "stop"


class TestCancel:
    async def test_in_the_middle_of_a_block(self, start: Start) -> None:
        async with start(HELD, max_num_seqs=1) as world:
            await world.submit("resp_a")
            await world.engine.until_open(1)
            await world.broker.cancel("resp_a")
            response = await world.ended("resp_a")
            assert not world.engine.open
            assert (response.status, response.finish_reason, response.error) == ("cancelled", "cancelled", None)
            assert response.steps[0] == TextStep(index=0, text="Go. ")
            assert (response.steps[1].size, response.steps[1].exit) == (1, "cut")
            assert world.count("ilvr_runner_responses_total", outcome="cancelled") == 1
            world.engine.may_go_on.set()
            await world.submit("resp_b")  # the slot is free again
            assert (await world.ended("resp_b")).status == "completed"

    async def test_only_the_one_that_was_meant(self, start: Start) -> None:
        async with start(HELD) as world:
            await world.submit("resp_a")
            await world.submit("resp_b")
            await world.engine.until_open(2)
            await world.broker.cancel("resp_a")
            assert (await world.ended("resp_a")).status == "cancelled"
            world.engine.may_go_on.set()
            assert (await world.ended("resp_b")).status == "completed"

    async def test_many_times(self, start: Start) -> None:
        """At any moment of many responses: each ends once, and nothing of it is left."""
        async with start(HELD, max_num_seqs=3) as world:
            names = [f"resp_{n}" for n in range(60)]
            for at, name in enumerate(names):
                await world.submit(name)
                for _ in range(at % 7):
                    await asyncio.sleep(0)
                await world.broker.cancel(name)
            assert {(await world.ended(name)).status for name in names} == {"cancelled"}
            await world.engine.until_open(0)

    async def test_twice(self, start: Start) -> None:
        async with start(HELD) as world:
            world.engine.closing_takes_s = 0.02
            await world.submit("resp_a")
            await world.engine.until_open(1)
            await world.broker.cancel("resp_a")
            await world.engine.is_closing.wait()
            await world.broker.cancel("resp_a")
            assert (await world.ended("resp_a")).status == "cancelled"

    async def test_while_the_engine_closes_after_the_last_token(self, start: Start) -> None:
        """``step.completed`` of the last step must come, whichever terminal event it is that follows."""
        async with start(ANSWER) as world:
            world.engine.closing_takes_s = 0.02
            await world.submit("resp_a")
            await world.engine.is_closing.wait()
            await world.broker.cancel("resp_a")
            assert (await world.ended("resp_a")).status in ("completed", "cancelled")

    async def test_before_the_work_has_begun(self, start: Start) -> None:
        async with start(HELD, broker=CancellingBroker(num_turns=0)) as world:
            await world.submit("resp_a")
            assert await ends_within_a_moment(world, "resp_a") == "cancelled"

    async def test_heard_before_the_lease(self, start: Start) -> None:
        """Of a broker in another process, two connections may answer in any order."""
        async with start(HELD, broker=CancellingBroker(num_turns=5)) as world:
            await world.submit("resp_a")
            assert await ends_within_a_moment(world, "resp_a") == "cancelled"


class CancellingBroker(EmbeddedBroker):
    """A caller cancels just after the lease was made; ``num_turns`` of the loop later the runner hears of the lease."""

    def __init__(self, *, num_turns: int) -> None:
        super().__init__()
        self._num_turns = num_turns

    async def take(self, runner_id: str, *, room: int) -> Sequence[Lease]:
        leases = await super().take(runner_id, room=room)
        for lease in leases:
            await self.cancel(lease.job.response_id)
        for _ in range(self._num_turns):
            await asyncio.sleep(0)
        return leases


async def ends_within_a_moment(world: World, response_id: str) -> str:
    return check(await asyncio.wait_for(read(world.broker, response_id), 0.3)).status


class TestFailures:
    async def test_a_dead_engine_ends_every_open_response(self, start: Start) -> None:
        broker = EmbeddedBroker(BrokerLimits(no_runner_grace_s=0.5))
        async with start(HELD, max_num_seqs=2, broker=broker) as world:
            for name in ("resp_a", "resp_b", "resp_waiting"):
                await world.submit(name)
            await world.engine.until_open(2)
            assert [runner.is_ready for runner in await world.broker.runners()] == [True]
            world.engine.die()
            for name in ("resp_a", "resp_b", "resp_waiting"):
                response = await world.ended(name)
                assert response.status == "failed"
                assert response.error is not None
                assert (response.error.code, response.error.retryable) == ("engine_dead", True)
            (runner,) = await world.broker.runners()
            assert not runner.is_ready
            assert runner.detail
            assert world.count("ilvr_runner_ready") == 0

    async def test_a_defect_ends_one_response_only(self, start: Start, caplog: pytest.LogCaptureFixture) -> None:
        async with start(HELD) as world:
            world.engine.scripts["resp_bad"] = [ANSWER[0], ZeroDivisionError("secret")]
            await world.submit("resp_good")
            await world.submit("resp_bad")
            bad = await world.ended("resp_bad")
            world.engine.may_go_on.set()
            good = await world.ended("resp_good")
            assert (await world.broker.runners())[0].is_ready
        assert good.status == "completed"
        assert bad.error is not None
        assert bad.error.code == "generation_failed"
        assert "secret" not in bad.error.message
        assert bad.steps[0] == TextStep(index=0, text="Go. ")
        assert [record.levelname for record in warnings_of(caplog)] == ["ERROR"]
        assert "secret" in caplog.text

    async def test_an_error_of_the_engine_is_told(self, start: Start) -> None:
        async with start([ANSWER[0], GenerationFailed("it was refused")]) as world:
            await world.submit("resp_a")
            response = await world.ended("resp_a")
        assert response.error is not None
        assert (response.error.code, response.error.message) == ("generation_failed", "it was refused")

    async def test_an_engine_that_ends_without_a_reason(self, start: Start) -> None:
        async with start(ANSWER[:2]) as world:
            await world.submit("resp_a")
            response = await world.ended("resp_a")
        assert response.error is not None
        assert response.error.code == "generation_failed"

    async def test_a_picture_that_is_none(self, start: Start) -> None:
        async with start(ANSWER) as world:
            image = StoredImage(ref=picture().ref, media_type="image/png", data=picture().data[:100])
            await world.broker.put_image(image)
            await world.submit("resp_a", images=(image.ref,))
            response = await world.ended("resp_a")
        assert response.error is not None
        assert (response.error.code, response.error.retryable) == ("not_an_image", False)
        assert not world.engine.requests

    async def test_a_picture_that_the_broker_lost(self, start: Start) -> None:
        """It was there when the job was accepted; sent again, the request brings it again."""
        async with start(ANSWER, broker=WithoutPictures()) as world:
            image = picture()
            await world.broker.put_image(image)
            await world.submit("resp_a", images=(image.ref,))
            response = await world.ended("resp_a")
        assert response.error is not None
        assert (response.error.code, response.error.retryable) == ("image_lost", True)
        assert not world.engine.requests

    async def test_an_end_that_the_broker_chokes_on(self, start: Start, caplog: pytest.LogCaptureFixture) -> None:
        """Nobody waits until the deadline: it is given back as lost work, and there is no other runner."""
        async with start(ANSWER, broker=Choking()) as world:
            await world.submit("resp_a")
            response = await world.ended("resp_a")
        assert response.error is not None
        assert (response.error.code, response.error.retryable) == ("engine_dead", True)
        assert "could not be ended" in caplog.text

    async def test_a_job_for_another_model(self, start: Start) -> None:
        async with start(ANSWER) as world:
            await world.broker.submit(Job(response_id="resp_a", created_at=0, model="other", question="?"))
            response = await world.ended("resp_a")
        assert response.error is not None
        assert (response.error.code, response.error.retryable) == ("generation_failed", True)
        assert "other" in response.error.message
        assert not world.engine.requests

    async def test_a_prompt_that_is_too_long(self, start: Start) -> None:
        async with start(ANSWER, context_tokens=20) as world:
            await world.submit("resp_a", question="R " * 30)
            response = await world.ended("resp_a")
        assert response.error is not None
        assert response.error.code == "prompt_too_long"
        assert not world.engine.requests

    async def test_a_lost_lease_stops_the_work_quietly(self, start: Start, caplog: pytest.LogCaptureFixture) -> None:
        async with start(HELD, max_num_seqs=1, broker=TakingBack("resp_a")) as world:
            await world.submit("resp_a")
            await world.submit("resp_b")
            world.engine.may_go_on.set()
            assert (await world.ended("resp_b")).status == "completed"  # so the one slot is free again
            assert not world.engine.open
            assert [request.request_id for request in world.engine.requests] == ["resp_a-1", "resp_b-1"]
        assert not warnings_of(caplog)
        assert world.count("ilvr_runner_responses_total", outcome="completed") == 1

    async def test_a_lease_that_comes_back_to_the_same_runner(
        self, start: Start, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It was silent for too long: attempt 2 comes while attempt 1 still runs. The end of the one must not be that
        of the other."""
        clock = Clock()
        async with start(HELD, broker=EmbeddedBroker(clock=clock)) as world:
            await world.submit("resp_a")
            await world.engine.until_open(1)
            clock.now += 100
            await world.broker.heartbeat(status("r2"))  # another one is there, so that the job is not given up
            world.broker.sweep()
            await world.engine.until_open(2)
            world.engine.may_go_on.set()
            assert (await world.ended("resp_a")).status == "completed"
            await world.engine.until_open(0)
            await asyncio.sleep(0.01)
        assert not warnings_of(caplog)  # asyncio would log an exception of the callback


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """And worse. Another test of this process may have had lines of INFO written."""
    return [record for record in caplog.records if record.levelno >= logging.WARNING]


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class WithoutPictures(EmbeddedBroker):
    """Keeps none, although it says so."""

    async def get_image(self, image_id: str, owner: str | None = None) -> StoredImage:
        raise ImageNotFound(f"No image {image_id}.")


class Choking(EmbeddedBroker):
    """On a runner's terminal events."""

    async def publish(self, lease: Lease, events: Sequence[Event], **others: Any) -> None:
        if any(isinstance(event, Terminal) for event in events):
            raise RuntimeError("a defect")
        await super().publish(lease, events, **others)


class TakingBack(EmbeddedBroker):
    """Gives the lease of one response to nobody else, but takes it away at the second thing that is said of it."""

    def __init__(self, response_id: str) -> None:
        super().__init__()
        self._taken = response_id
        self._num_calls = 0

    async def publish(
        self,
        lease: Lease,
        events: Sequence[Event],
        *,
        num_before: int | None = None,
        token_ids: Sequence[int] | None = None,
    ) -> None:
        if lease.job.response_id == self._taken:
            self._num_calls += 1
            if self._num_calls > 1:
                raise LeaseLost(self._taken)
        await super().publish(lease, events, num_before=num_before, token_ids=token_ids)


class TestRoom:
    async def test_never_more_than_the_engine_takes(self, start: Start) -> None:
        async with start(HELD, max_num_seqs=2) as world:
            names = [f"resp_{n}" for n in range(7)]
            for name in names:
                await world.submit(name)
            await world.engine.until_open(2)
            for _ in range(20):
                await asyncio.sleep(0)
            assert len(world.engine.requests) == 2
            world.engine.may_go_on.set()
            assert {(await world.ended(name)).status for name in names} == {"completed"}
        assert world.engine.most_open == 2
        assert [request.request_id for request in world.engine.requests] == [f"{name}-1" for name in names]


class TestSilentEngine:
    @pytest.fixture(autouse=True)
    def quickly(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("model_runner.runner.ASK_ENGINE_S", 0.01)
        monkeypatch.setattr("model_runner.runner.ENGINE_SILENCE_S", 0.05)
        monkeypatch.setattr("model_runner.runner.HEARTBEAT_S", 0.01)

    async def test_it_takes_nothing_until_the_engine_answers_again(self, start: Start) -> None:
        async with start(ANSWER) as world:
            world.engine.answers.clear()
            await until_ready_is(world, is_ready=False)
            await world.submit("resp_a")
            await asyncio.sleep(0.1)
            assert not world.engine.requests
            world.engine.answers.set()
            assert (await world.ended("resp_a")).status == "completed"
            await until_ready_is(world, is_ready=True)

    async def test_what_it_works_on_is_not_lost(self, start: Start) -> None:
        async with start(HELD, max_num_seqs=1) as world:
            await world.submit("resp_a")
            await world.submit("resp_b")
            await world.engine.until_open(1)
            world.engine.answers.clear()
            await until_ready_is(world, is_ready=False)
            world.engine.may_go_on.set()
            assert (await world.ended("resp_a")).status == "completed"
            await asyncio.sleep(0.05)
            assert len(world.engine.requests) == 1  # there is room, and it is not used
            world.engine.answers.set()
            assert (await world.ended("resp_b")).status == "completed"


async def until_ready_is(world: World, *, is_ready: bool) -> None:
    async with asyncio.timeout(SOON_S):
        while (await world.broker.runners())[0].is_ready != is_ready:  # noqa: ASYNC110 - it is said in heartbeats
            await asyncio.sleep(0.01)


async def test_the_engine_is_prepared_before_it_is_announced(start: Start) -> None:
    """Once, and not again with each heartbeat; that it cannot be done ends the start."""
    async with start(ANSWER) as world:
        await asyncio.sleep(0)
        assert world.engine.num_prepared == 1
        world.engine.cannot = BadSettings("no donors")
        with pytest.raises(BadSettings, match="no donors"):
            await world.runner.announce()
        await world.submit("resp_a")
        assert (await world.ended("resp_a")).status == "completed"


async def test_it_says_once_a_second_how_it_is(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model_runner.runner.HEARTBEAT_S", 0.001)
    async with start(HELD) as world:
        heard: list[RunnerStatus] = []
        heartbeat: Callable[[RunnerStatus], Awaitable[None]] = world.broker.heartbeat

        async def hear(said: RunnerStatus) -> None:
            heard.append(said)
            await heartbeat(said)

        monkeypatch.setattr(world.broker, "heartbeat", hear)
        await world.submit("resp_a")
        await world.engine.until_open(1)
        await asyncio.sleep(0.02)
        (said,) = await world.broker.runners()
        assert len(heard) > 2
        assert said == RunnerStatus(
            runner_id="r1",
            model="m",
            is_ready=True,
            num_running=1,
            max_num_seqs=4,
            latent_size=8,
            latent_exit="fixed",
            engine="scripted",
        )


async def test_a_lease_that_comes_as_the_runner_stops_is_given_back(start: Start) -> None:
    class Racing(EmbeddedBroker):
        """Whose answer to ``take`` and whose end of the runner come at once."""

        async def take(self, runner_id: str, *, room: int) -> Sequence[Lease]:
            leases = await super().take(runner_id, room=room)
            stopping.append(asyncio.ensure_future(world.runner.drain(0)))
            return leases

    stopping: list[asyncio.Future[None]] = []
    async with start(HELD, broker=Racing()) as world:
        await world.broker.heartbeat(status("other"))
        await world.submit("resp_a")
        while not stopping:  # noqa: ASYNC110 - it is made inside the broker
            await asyncio.sleep(0)
        await asyncio.wait_for(stopping[0], SOON_S)
        (lease,) = await asyncio.wait_for(EmbeddedBroker.take(world.broker, "other", room=1), SOON_S)
        assert (lease.job.response_id, lease.attempt) == ("resp_a", 2)
