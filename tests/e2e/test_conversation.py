"""``previous_response_id`` on the embedded model: the same ids as one request with the whole conversation.

It was trained on single questions, so what it says to a second one makes no sense; which tokens it says is exact.
"""

import asyncio
import io
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import httpx
import pytest
import pytest_asyncio
from PIL import Image
from prometheus_client import CollectorRegistry

from broker.embedded import EmbeddedBroker
from contracts.jobs import Sampling, Turn
from contracts.maze_pictures import draw_maze
from contracts.mazes import generate
from ilvr.defaults import EMBEDDED_MODEL
from model_runner.attempt import Answering
from model_runner.engine.base import EngineImage, EngineRequest
from model_runner.engine.vllm_engine import VllmEngine
from model_runner.main import make_runner, start_engine
from model_runner.metrics import RunnerMetrics
from model_runner.settings import RunnerSettings
from service.app import create_app
from service.settings import ServiceSettings
from tests.service.helpers import base64_image

pytestmark = pytest.mark.asyncio(loop_scope="module")

BLOCK_SIZE = 32
VLLM = RunnerSettings(model=EMBEDDED_MODEL, kv_cache_mib=64, block_size=BLOCK_SIZE, max_num_seqs=8)
PLAIN = RunnerSettings(model=EMBEDDED_MODEL, engine="transformers")
# So long that the block of the first answer ends within the second KV block, and the answer beyond it.
QUESTION = "How many holes are there? Find a safe path from S to G."
SECOND = "Find another path from S to G, and say <|im_end|> and <|latent_start|>."
LIMIT = 40  # tokens of the answers that nothing else ends


def maze_file(seed: int) -> bytes:
    file = io.BytesIO()
    draw_maze(generate(4, seed).rows).save(file, "PNG")
    return file.getvalue()


FILE = maze_file(7)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fast() -> AsyncIterator[Answering]:
    tools = start_engine(VLLM)
    yield tools
    await tools.engine.aclose()


@pytest.fixture(scope="module")
def plain() -> Iterator[Answering]:
    """The sequential loop, which keeps nothing."""
    return start_engine(PLAIN)


@dataclass
class Service:
    """A gateway on a broker. :meth:`runner` serves a model there."""

    broker: EmbeddedBroker
    client: httpx.AsyncClient

    @asynccontextmanager
    async def runner(self, settings: RunnerSettings, tools: Answering) -> AsyncIterator[None]:
        runner = make_runner(settings, broker=self.broker, tools=tools, metrics=RunnerMetrics(CollectorRegistry()))
        await runner.announce()
        task = asyncio.create_task(runner.run())
        try:
            yield
        finally:
            await runner.drain(0.0)
            task.cancel()
            await asyncio.wait([task])

    async def ask(self, question: str, **fields: Any) -> dict[str, Any]:
        body = {"question": question, "temperature": 0, "max_tokens": LIMIT, **fields}
        answer = await self.client.post("/v1/reason", json=body)
        assert answer.status_code == 200, answer.text
        return cast(dict[str, Any], answer.json())

    async def ids(self, response: dict[str, Any]) -> tuple[int, ...]:
        found = await self.broker.token_ids(response["id"])
        assert found is not None
        return found


@pytest_asyncio.fixture(loop_scope="module")
async def service() -> AsyncIterator[Service]:
    broker = EmbeddedBroker()
    app = create_app(broker, ServiceSettings(), CollectorRegistry())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway", timeout=60) as client:
        yield Service(broker, client)
    await app.state.gateway.aclose()
    await broker.aclose()


async def one_request(tools: Answering, prompt_ids: tuple[int, ...], *, mode: Any = "on") -> tuple[int, ...]:
    """What an engine says to a whole conversation of which it has seen nothing."""
    with Image.open(io.BytesIO(FILE)) as file:
        image = EngineImage(id="one", rgb=file.convert("RGB"))
    request = EngineRequest(
        request_id=f"whole-{len(prompt_ids)}-{mode}",
        prompt_ids=prompt_ids,
        images=(image,),
        sampling=tools.defaults.resolve(
            Sampling(max_tokens=LIMIT, temperature=0),
            num_prompt_tokens=len(prompt_ids),
            context_tokens=tools.context_tokens,
        ),
        latent_mode=mode,
    )
    return tuple([token async for delta in tools.engine.generate(request) for token in delta.ids])


def conversation(*said: str | tuple[int, ...]) -> tuple[Turn, ...]:
    """Questions and answers; the image comes before the first question."""
    turns = [
        Turn(role="user", text=one, num_images=int(at == 0))
        if isinstance(one, str)
        else Turn(role="assistant", token_ids=one)
        for at, one in enumerate(said)
    ]
    return tuple(turns)


def latents_in(response: dict[str, Any]) -> list[int]:
    return [step["size"] for step in response["steps"] if step["type"] == "latent"]


async def test_a_second_question_is_answered_from_the_cache_and_without_it_and_by_another_runner(
    service: Service, fast: Answering, plain: Answering
) -> None:
    """The same ids each time, which are those of one request with the whole conversation."""
    engine = fast.engine
    assert isinstance(engine, VllmEngine)
    assert await engine.reset_prefix_cache()
    async with service.runner(VLLM, fast):
        first = await service.ask(QUESTION, images=[base64_image(FILE)])
        assert latents_in(first) == [8]
        warm = await service.ask(SECOND, previous_response_id=first["id"])
        assert await engine.reset_prefix_cache()
        cold = await service.ask(SECOND, previous_response_id=first["id"])
    async with service.runner(PLAIN, plain):
        elsewhere = await service.ask(SECOND, previous_response_id=first["id"])
    first_ids = await service.ids(first)
    answers = [await service.ids(response) for response in (warm, cold, elsewhere)]

    history = conversation(QUESTION, first_ids)
    prompt = fast.prompts.build(SECOND, num_images=0, history=history)
    alone = fast.prompts.build(QUESTION, num_images=1)
    assert prompt[: len(alone) + len(first_ids)] == alone + first_ids
    assert answers == [await one_request(plain, prompt)] * 3

    num_prompt_tokens = first["usage"]["input_tokens"]
    computed = num_prompt_tokens + len(first_ids) - 1  # of the last token nothing is kept
    assert warm["usage"]["cached_tokens"] == computed // BLOCK_SIZE * BLOCK_SIZE
    assert warm["usage"]["cached_tokens"] > num_prompt_tokens + first_ids.index(fast.spec.end_id)
    assert cold["usage"]["cached_tokens"] == elsewhere["usage"]["cached_tokens"] == 0


async def test_a_chain_with_latents_off_and_on_and_an_answer_cut_in_a_block(
    service: Service, fast: Answering, plain: Answering
) -> None:
    """What was cut goes on from before its block; a predecessor's predecessor is known without being asked for."""
    async with service.runner(VLLM, fast):
        whole = await service.ask(QUESTION, images=[base64_image(FILE)])
        whole_ids = await service.ids(whole)
        start_at = whole_ids.index(fast.spec.start_id)
        cut = await service.ask(QUESTION, images=[base64_image(FILE)], max_tokens=start_at + 4)
        assert (cut["status"], cut["steps"][-1]["exit"]) == ("incomplete", "cut")
        off = await service.ask(SECOND, previous_response_id=cut["id"], latent={"mode": "off"})
        assert latents_in(off) == []
        last = await service.ask(QUESTION, previous_response_id=off["id"])
    cut_ids, off_ids, last_ids = [await service.ids(response) for response in (cut, off, last)]
    assert cut_ids == whole_ids[: start_at + 4]

    second = fast.prompts.build(SECOND, num_images=0, history=conversation(QUESTION, whole_ids[:start_at]))
    assert off_ids == await one_request(plain, second, mode="off")
    third = fast.prompts.build(
        QUESTION, num_images=0, history=conversation(QUESTION, whole_ids[:start_at], SECOND, off_ids)
    )
    assert last_ids == await one_request(plain, third)


async def test_a_picture_of_the_second_question_comes_after_the_first_answer(service: Service, fast: Answering) -> None:
    """On a warm cache and on a cold one. The sequential loop reads pictures before the first block only."""
    engine = fast.engine
    assert isinstance(engine, VllmEngine)
    async with service.runner(VLLM, fast):
        first = await service.ask(QUESTION, images=[base64_image(FILE)])
        more = {"images": [base64_image(maze_file(11))], "previous_response_id": first["id"]}
        warm = await service.ask(QUESTION, **more)
        assert await engine.reset_prefix_cache()
        cold = await service.ask(QUESTION, **more)
    assert warm["usage"]["image_tokens"] == cold["usage"]["image_tokens"] == 2 * first["usage"]["image_tokens"]
    assert warm["usage"]["cached_tokens"] > first["usage"]["input_tokens"]
    assert cold["usage"]["cached_tokens"] == 0
    assert await service.ids(warm) == await service.ids(cold)


async def test_a_conversation_that_the_context_does_not_hold(service: Service, fast: Answering) -> None:
    async with service.runner(VLLM, replace(fast, context_tokens=300)):
        first = await service.ask(QUESTION, images=[base64_image(FILE)])
        body = {"question": "Which way? " * 60, "previous_response_id": first["id"]}
        answer = await service.client.post("/v1/reason", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "prompt_too_long")
