"""The reference engine: plain transformers, one request at a time, written to be read.

What it does is the published loop (XD111ds/ILVR, ``generate`` at batch 1) on the stock model class: nothing is batched,
nothing is clever, and so it is what the tests and the evaluation compare the served engine with.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from typing import Any, cast

import torch
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.generation.logits_process import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from contracts.errors import PromptTooLong
from contracts.manifest import LatentSpec
from model_runner.ablation.donors import BANK_CAPACITY, OWN, Ablation, Row, block_positions, has_enough
from model_runner.ablation.feedback import DonorBank, Feedback
from model_runner.ablation.samples import donor_requests
from model_runner.checkpoint import Checkpoint
from model_runner.engine.base import EngineRequest, EngineStats, PromptInfo, SamplingSettings, StopReason, TokenDelta
from model_runner.engine.in_thread import in_thread
from model_runner.engine.plain_sequence import Feed, PlainSequence
from model_runner.generation import GenerationDefaults
from model_runner.image_processor import load_image_processor
from model_runner.settings import LatentAblation, RunnerSettings


class TransformersEngine:
    """Requests wait for each other; each is computed in a thread, so that the event loop stays free."""

    name = "transformers"

    def __init__(
        self,
        model: Any,
        checkpoint: Checkpoint,
        end_ids: tuple[int, ...],
        max_history_latents: int,
        ablation: Ablation | None = None,
        feedback: Feedback | None = None,
    ) -> None:
        """``feedback`` is what is fed back if not the own hidden states, with ``ablation`` beside it."""
        self._model = model
        self._ablation = ablation or Ablation("none")
        self._feedback = feedback
        self._latents: dict[int, Tensor] = {}  # fed to the latest request, by position
        self._checkpoint = checkpoint
        self._end_ids = end_ids
        self._max_history_latents = max_history_latents
        self._processor = load_image_processor(str(checkpoint.folder))
        self._turn = asyncio.Lock()
        self._num_images_encoded = 0

    @classmethod
    def start(
        cls,
        settings: RunnerSettings,
        checkpoint: Checkpoint,
        defaults: GenerationDefaults,
        donors: Sequence[EngineRequest] | None = None,
    ) -> "TransformersEngine":
        """Load the model. ``donors``: samples whose latents ``swap`` feeds; as the settings say if None.

        Raises ``BadSettings`` for donors that cannot be read.
        """
        mode = settings.latent_ablation
        if mode == "swap" and donors is None:
            donors = donor_requests(settings.latent_donors, checkpoint, defaults)
        dtype = torch.float32 if settings.dtype == "auto" else getattr(torch, settings.dtype)
        model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
            checkpoint.folder, dtype=dtype, attn_implementation="eager"
        )
        model.requires_grad_(False)
        feedback = None
        if mode != "none":
            bank = DonorBank.allocate(
                capacity=BANK_CAPACITY if mode == "swap" else 0,
                size=checkpoint.spec.size,
                hidden_size=checkpoint.text_config["hidden_size"],
                dtype=dtype,
                device="cpu",
            )
            feedback = Feedback(mode, bank)
        ablation = Ablation(mode, donors or ())
        return cls(model, checkpoint, defaults.end_ids, settings.max_history_latents, ablation, feedback)

    @property
    def latent_ablation(self) -> LatentAblation:
        return self._ablation.mode

    async def prepare(self) -> None:
        await self._ablation.prepare(self._record_donor)

    async def generate(self, request: EngineRequest) -> AsyncGenerator[TokenDelta, None]:
        if request.prompt_ids.count(self._checkpoint.spec.pad_id) > self._max_history_latents:
            raise PromptTooLong(
                f"the history holds more than {self._max_history_latents} latents (--max-history-latents)"
            )
        await self.prepare()
        row = self._ablation.row(request)
        waited_from = time.monotonic()
        async with self._turn:
            queue_ms = (time.monotonic() - waited_from) * 1000
            async with aclosing(in_thread(self._deltas(request, queue_ms, row))) as deltas:
                async for delta in deltas:
                    yield delta

    async def _record_donor(self, request: EngineRequest) -> int:
        """Answer a request with its own latents and keep them."""
        assert self._feedback is not None  # only `swap` has donors
        spec = self._checkpoint.spec
        ids: list[int] = []
        num_prompt_tokens = 0
        async with self._turn:
            async with aclosing(in_thread(self._deltas(request, 0.0, OWN))) as deltas:
                async for delta in deltas:
                    num_prompt_tokens = delta.prompt.num_tokens if delta.prompt else num_prompt_tokens
                    ids += delta.ids
                    if has_enough(ids, spec):
                        break
            return self._feedback.bank.add(self._latents, block_positions(ids, num_prompt_tokens, spec))

    async def is_alive(self) -> bool:
        return True

    async def stats(self) -> EngineStats:
        return EngineStats(num_running=int(self._turn.locked()), model={"images_encoded": self._num_images_encoded})

    async def aclose(self) -> None: ...

    @torch.inference_mode()
    def _deltas(self, request: EngineRequest, queue_ms: float, row: Row) -> Iterator[TokenDelta]:
        """The loop itself."""
        spec, sampling = self._checkpoint.spec, request.sampling
        images = self._pixels(request)
        ids = self._expanded(request.prompt_ids, images)
        prompt = PromptInfo(
            num_tokens=len(ids),
            num_image_tokens=ids.count(self._checkpoint.image_token_id),
            num_cached_tokens=0,
            queue_ms=queue_ms,
        )
        sequence = PlainSequence(self._model, spec, self._fed_by(row))
        self._latents = sequence.latents
        hidden = sequence.read_prompt(ids, images)
        generator = torch.Generator().manual_seed(sampling.seed) if sampling.seed is not None else None
        processors = _logits_processors(sampling)
        for count in range(1, sampling.max_tokens + 1):
            scores = self._model.lm_head(hidden)[None].float()
            if request.latent_mode == "off":
                scores[:, spec.start_id] = float("-inf")
            if spec.rule == "fixed":
                scores[:, [spec.pad_id, spec.end_id]] = float("-inf")
            scores = processors(cast(torch.LongTensor, torch.tensor([ids])), cast(torch.FloatTensor, scores))
            chosen = _choose(scores, sampling, generator)
            token = in_block(chosen, sequence.phase, spec)
            ids.append(token)
            is_end = token in self._end_ids
            reason: StopReason | None = "stop" if is_end else "length" if count == sampling.max_tokens else None
            yield TokenDelta(ids=(token,), prompt=prompt if count == 1 else None, stop_reason=reason)
            if reason is not None:
                return
            hidden = sequence.step(token)

    def _fed_by(self, row: Row) -> Feed | None:
        """What a request with this row is fed in place of its own hidden state; None: nothing."""
        feedback = self._feedback
        if feedback is None:
            return None
        rows_T3 = torch.tensor([row])

        def feed(own_TD: Tensor, position: int, phase: int) -> Tensor:
            return feedback.feed(own_TD, torch.tensor([position]), torch.tensor([phase]), rows_T3)

        return feed

    def _pixels(self, request: EngineRequest) -> dict[str, Tensor]:
        if not request.images:
            return {}
        self._num_images_encoded += len(request.images)
        features = self._processor(images=[image.rgb for image in request.images], return_tensors="pt")
        return {"pixel_values": features["pixel_values"], "image_grid_thw": features["image_grid_thw"]}

    def _expanded(self, prompt_ids: tuple[int, ...], images: dict[str, Tensor]) -> list[int]:
        """Each image token repeated for every merged patch of its image."""
        image_id = self._checkpoint.image_token_id
        sizes = iter((images["image_grid_thw"].prod(-1) // self._processor.merge_size**2).tolist() if images else [])
        return [token for one in prompt_ids for token in ([one] * next(sizes) if one == image_id else [one])]


def in_block(chosen: int, phase: int, spec: LatentSpec) -> int:
    """What the model's choice becomes, by where it stands: phase 0 outside a block, 1 + n after n pads."""
    if phase == 0:
        return chosen
    if spec.rule == "learned" and chosen in (spec.start_id, spec.end_id):
        return chosen
    return spec.end_id if phase > spec.size else spec.pad_id


def _logits_processors(sampling: SamplingSettings) -> LogitsProcessorList:
    """In the order of ``generate()``: penalty, then temperature, top-k and top-p where it samples."""
    processors = LogitsProcessorList()
    if sampling.repetition_penalty != 1.0:
        processors.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    if sampling.temperature > 0:
        processors.append(TemperatureLogitsWarper(sampling.temperature))
        if sampling.top_k:
            processors.append(TopKLogitsWarper(sampling.top_k))
        if sampling.top_p < 1:
            processors.append(TopPLogitsWarper(sampling.top_p))
    return processors


def _choose(scores: Tensor, sampling: SamplingSettings, generator: torch.Generator | None) -> int:
    if sampling.temperature == 0:
        return int(scores.argmax())
    return int(torch.multinomial(scores.softmax(-1)[0], 1, generator=generator))
