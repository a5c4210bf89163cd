"""Requests as vLLM's engine is sent them.

vLLM's renderer hands each prompt to threads, because there may be pictures to process. Text, and a question about
pictures that the engine process has already, needs no processing: it is put together at once, where it is asked for.
"""

import asyncio
from typing import Any

from model_runner.engine.base import EngineRequest


class Prompts:
    """Of one ``AsyncLLM``, whose renderer has a cache of what the engine process was sent of each picture."""

    def __init__(self, llm: Any, image_token_id: int) -> None:
        self._llm = llm
        self._image_token_id = image_token_id
        self._rendering: set[asyncio.Future[Any]] = set()  # in vLLM's thread, the only other user of that cache

    async def of(self, request: EngineRequest) -> Any:
        """vLLM's ``EngineInput``. Raises what vLLM raises for a prompt that it refuses."""
        ready = self._at_once(request)
        if ready is not None:
            return ready
        rendering = asyncio.ensure_future(self._llm.renderer.render_cmpl_async([raw_prompt(request)]))
        self._rendering.add(rendering)
        rendering.add_done_callback(self._rendering.discard)
        (rendered,) = await asyncio.shield(rendering)  # a cancel ends no thread
        return rendered

    def _at_once(self, request: EngineRequest) -> Any:
        """As the renderer would answer. None where it has to: for a new picture, or while it is in its cache."""
        from vllm.inputs.engine import mm_input, tokens_input
        from vllm.multimodal.inputs import MultiModalKwargsItems, PlaceholderRange

        if not request.images:
            return tokens_input(list(request.prompt_ids))
        renderer = self._llm.renderer
        cache = renderer.mm_processor_cache
        ids = [image.id for image in request.images]
        if cache is None or self._rendering or not all(cache.is_cached(ids)):
            return None
        if request.prompt_ids.count(self._image_token_id) != len(ids):
            return None  # refused there, in vLLM's words
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
