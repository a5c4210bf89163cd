"""Requests as vLLM's engine is sent them.

vLLM's renderer hands each prompt to threads, because there may be pictures to process. Text, and a question about
pictures that the engine process has already, needs no processing: it is put together at once, where it is asked for.
"""

import asyncio
from typing import Any

from model_runner.engine.base import EngineRequest


class Prompts:
    """For one ``AsyncLLM``, whose renderer has a cache of what the engine process was sent of each picture."""

    def __init__(self, image_token_id: int) -> None:
        self._image_token_id = image_token_id
        self._rendering: set[asyncio.Future[Any]] = set()  # in vLLM's thread, the only other user of that cache

    async def of(self, request: EngineRequest, renderer: Any) -> Any:
        """vLLM's ``EngineInput``, to be sent before anything else is awaited. Raises what vLLM raises for a prompt that
        it refuses; and ``AssertionError`` where a picture is lost while vLLM's thread believes to know it."""
        ready = self._at_once(request, renderer)
        if ready is not None:
            return ready
        rendering = asyncio.ensure_future(renderer.render_cmpl_async([raw_prompt(request)]))
        self._rendering.add(rendering)
        try:
            (rendered,) = await asyncio.shield(rendering)  # a cancel ends no thread
        finally:
            if rendering.done():
                self._end(rendering)
            else:
                rendering.add_done_callback(self._end)
        return rendered

    def _end(self, rendering: asyncio.Future[Any]) -> None:
        self._rendering.discard(rendering)
        if not rendering.cancelled():
            rendering.exception()  # nobody else may have asked for it

    def _at_once(self, request: EngineRequest, renderer: Any) -> Any:
        """As the renderer would answer. None where it has to: for a new picture, or while it is in its cache."""
        from vllm.inputs.engine import mm_input, tokens_input
        from vllm.multimodal.inputs import MultiModalKwargsItems, PlaceholderRange

        if not request.images:
            return tokens_input(list(request.prompt_ids))
        cache = renderer.mm_processor_cache
        ids = [image.id for image in request.images]
        if cache is None or self._rendering or not all(cache.is_cached(ids)):
            return None
        if request.prompt_ids.count(self._image_token_id) != len(ids):
            return None  # refused there, in vLLM's words
        renderer.get_mm_processor().info.validate_num_items("image", len(ids))
        known = [cache.get_and_update_item(None, image_id) for image_id in ids]
        renderer.update_mm_cache_stats()
        tokens: list[int] = []
        places = []
        begin = 0
        for _, (update,) in known:
            end = request.prompt_ids.index(self._image_token_id, begin)
            tokens += request.prompt_ids[begin:end]
            places.append(PlaceholderRange(offset=len(tokens), length=len(update.content.full)))
            tokens += update.content.full
            begin = end + 1
        return mm_input(
            prompt_token_ids=[*tokens, *request.prompt_ids[begin:]],
            mm_kwargs=MultiModalKwargsItems({"image": [item for item, _ in known]}),
            mm_hashes={"image": ids},
            mm_placeholders={"image": places},
        )


def raw_prompt(request: EngineRequest) -> dict[str, Any]:
    """As anyone asks vLLM: with a token for each picture."""
    prompt: dict[str, Any] = {"prompt_token_ids": list(request.prompt_ids)}
    if request.images:
        prompt["multi_modal_data"] = {"image": [image.rgb for image in request.images]}
        prompt["multi_modal_uuids"] = {"image": [image.id for image in request.images]}
    return prompt
