"""What the engine is sent without vLLM's renderer is what the renderer would have sent, whatever is forgotten."""

import asyncio
from dataclasses import replace

import pytest
import pytest_asyncio

from contracts.errors import GenerationFailed
from model_runner.engine.vllm_prompts import Prompts, raw_prompt
from model_runner.settings import RunnerSettings
from tests.parity.traces import IMAGE_ID, answer, read_traces, request_of, text_request

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(start_vllm):
    async with start_vllm("b") as engine:
        yield engine


@pytest.fixture
def traces():
    return read_traces("b")


async def test_put_together_as_the_renderer_would(engine, traces, checkpoint_of, monkeypatch):
    """All recorded prompts, and one with two pictures, the first of them twice."""
    _, defaults = checkpoint_of("b")
    requests = [request_of(trace, defaults, f"as-{trace.index}") for trace in traces]
    pictures = {image.id: image for request in requests for image in request.images}
    one, other = list(pictures.values())[:2]
    ids = (5, IMAGE_ID, 6, 7, IMAGE_ID, IMAGE_ID, 8)
    requests.append(replace(requests[0], request_id="as-two", prompt_ids=ids, images=(one, other, one)))
    requests.append(text_request(ids[2:4], "as-text", max_tokens=1))
    renderer = engine._llm.renderer
    for request in requests:
        await renderer.render_cmpl_async([raw_prompt(request)])  # from now on the pictures are known
    rendered = [(await renderer.render_cmpl_async([raw_prompt(request)]))[0] for request in requests]
    prompts = Prompts(IMAGE_ID)
    monkeypatch.setattr(renderer, "render_cmpl_async", None)
    for request, expected in zip(requests, rendered, strict=True):
        del expected["arrival_time"]  # vLLM takes the time itself
        assert await prompts.of(request, renderer) == expected
    assert await engine.reset_prefix_cache()


async def test_a_prompt_with_too_few_places_is_left_to_the_renderer(engine, traces, checkpoint_of):
    _, defaults = checkpoint_of("b")
    request = request_of(next(trace for trace in traces if trace.files), defaults, "places")
    prompts, renderer = Prompts(IMAGE_ID), engine._llm.renderer
    await prompts.of(request, renderer)
    with pytest.raises(AssertionError, match="Failed to apply prompt replacement"):
        await prompts.of(replace(request, prompt_ids=(5, 6)), renderer)
    with pytest.raises(GenerationFailed, match="could not be put into its prompt"):
        await answer(engine, replace(request, prompt_ids=(5, 6)))
    assert await engine.reset_prefix_cache()


async def test_more_pictures_than_a_prompt_may_have_are_refused_whether_known_or_not(engine, traces, checkpoint_of):
    _, defaults = checkpoint_of("b")
    request = request_of(next(trace for trace in traces if trace.files), defaults, "many")
    (image, *_), count = request.images, 1 + RunnerSettings.model_fields["max_images"].default
    many = replace(request, images=(image,) * count, prompt_ids=(IMAGE_ID,) * count)
    for name in ("unknown", "known"):
        with pytest.raises(GenerationFailed, match=f"At most {count - 1} image"):
            await answer(engine, replace(many, request_id=f"many-{name}"))
        await answer(engine, replace(request, request_id=f"one-{name}"))
    assert await engine.reset_prefix_cache()


async def test_who_follows_right_behind_a_new_picture_does_not_overtake_it(engine, traces, checkpoint_of):
    """Its prompt is put together when the picture is on its way, or else it comes without what it is about."""
    _, defaults = checkpoint_of("b")
    trace = next(trace for trace in traces if trace.files)
    request = request_of(trace, defaults, "before")
    sent: list[str] = []
    prompts, renderer = Prompts(IMAGE_ID), engine._llm.renderer

    async def send(name):
        prompt = await prompts.of(request, renderer)
        sent.append(f"{name}: {'nothing' if prompt['mm_kwargs']['image'][0] is None else 'the picture'}")

    assert await engine.reset_prefix_cache()
    first = asyncio.ensure_future(send("first"))
    while not prompts._rendering:  # noqa: ASYNC110 - turn for turn
        await asyncio.sleep(0)
    while prompts._rendering:  # noqa: ASYNC110 - or this would have to be rendered too
        await asyncio.sleep(0)
    await send("second")
    await first
    assert sent == ["first: the picture", "second: nothing"]
    assert await engine.reset_prefix_cache()


async def test_a_picture_that_is_lost_while_it_is_believed_to_be_known(engine, traces, checkpoint_of, monkeypatch):
    _, defaults = checkpoint_of("b")
    trace = next(trace for trace in traces if trace.files)
    cache = engine._llm.renderer.mm_processor_cache
    is_cached = cache.is_cached
    claims = [True]
    monkeypatch.setattr(cache, "is_cached", lambda ids: [claims.pop()] if claims else is_cached(ids))
    ids, _ = await answer(engine, request_of(trace, defaults, "believed"))
    assert (ids, claims) == (trace.output_ids, [])


async def test_pictures_that_the_engine_process_forgot_are_sent_again(engine, traces, checkpoint_of):
    """Asked together: each is told of the loss, and each is answered."""
    _, defaults = checkpoint_of("b")
    requests = [request_of(trace, defaults, f"forgot-{trace.index}") for trace in traces]
    for request in requests:
        await answer(engine, replace(request, request_id=f"{request.request_id}-first"))
    await engine._llm.engine_core.reset_mm_cache_async()  # there alone
    answers = await asyncio.gather(*(answer(engine, request) for request in requests))
    assert [ids for ids, _ in answers] == [trace.output_ids for trace in traces]


@pytest.mark.parametrize("turns", range(4))
async def test_who_gives_up_while_a_picture_is_processed_spoils_it_for_nobody(engine, traces, checkpoint_of, turns):
    """The renderer then believes that the engine has it. ``turns``: of the event loop until then."""
    _, defaults = checkpoint_of("b")
    assert await engine.reset_prefix_cache()
    trace = next(trace for trace in traces if trace.files)
    request = request_of(trace, defaults, f"given-up-{turns}")
    asking = asyncio.ensure_future(answer(engine, request))
    for _ in range(turns):
        await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait([asking])
    assert asking.cancelled()
    ids, _ = await answer(engine, replace(request, request_id=f"asked-{turns}"))
    assert ids == trace.output_ids
