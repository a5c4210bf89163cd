"""Engines in this process, as ``training.evaluate`` asks for them: one serves latents on and off, one each ablation."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from contracts.errors import RequestError
from contracts.jobs import LatentMode, Sampling
from ilvr.sample_prompts import SamplePrompts
from model_runner.ablation.samples import MAX_DONORS
from model_runner.checkpoint import read_checkpoint
from model_runner.engine.base import Engine, EngineImage, EngineRequest, StopReason
from model_runner.generation import read_generation_defaults
from model_runner.image_processor import ImageSizes
from model_runner.main import start_engine
from model_runner.settings import LatentAblation, RunnerSettings, load_settings
from model_runner.steps import StepMachine, TextAdded
from model_runner.vocabulary import read_vocabulary
from training.answer_log import Ablation, Answered
from training.samples import Sample, load_image, question_parts

EngineName = Literal["vllm", "transformers"]
FED: dict[Ablation, LatentAblation] = {"on": "none", "off": "none", "zero": "zero", "noise": "noise", "swap": "swap"}


class Asking:
    """How a checkpoint is asked a sample: greedy, with its own repetition penalty, as it was trained to be asked."""

    def __init__(self, folder: Path, *, max_tokens: int, seed: int) -> None:
        """Raises ``BadCheckpoint`` for a folder that cannot be served."""
        self.folder = folder
        self.checkpoint = read_checkpoint(folder, is_cpu=False)
        self.vocabulary = read_vocabulary(folder)
        self.prompts = SamplePrompts(self.checkpoint)
        self._defaults = read_generation_defaults(folder, self.checkpoint.config)
        self._image_sizes = ImageSizes(str(folder))
        self._sampling = Sampling(temperature=0.0, max_tokens=max_tokens, seed=seed)

    def request(self, sample: Sample, request_id: str, latent_mode: LatentMode, context_tokens: int) -> EngineRequest:
        """Reads the pictures. Raises ``RequestError`` if this sample cannot be asked."""
        parts = question_parts(sample)
        images = tuple(_image(part) for part in parts if isinstance(part, Path))
        prompt_ids = self.prompts.build_parts(parts)
        num_image_tokens = sum(self._image_sizes.num_tokens(image.rgb.size) for image in images)
        return EngineRequest(
            request_id=request_id,
            prompt_ids=prompt_ids,
            images=images,
            sampling=self._defaults.resolve(
                self._sampling,
                num_prompt_tokens=len(prompt_ids) - len(images) + num_image_tokens,
                context_tokens=context_tokens,
            ),
            latent_mode=latent_mode,
        )


class EngineAnswerer:
    """Answers with an engine that is started."""

    def __init__(self, engine: Engine, asking: Asking, settings: RunnerSettings, ablation: Ablation) -> None:
        # The plain engine answers one after the other: to wait in its queue would count as latency.
        self.max_concurrency = 1 if engine.name == "transformers" else settings.max_num_seqs
        self._engine = engine
        self._asking = asking
        self._spec = asking.checkpoint.spec
        self._settings = settings
        self._ablation = ablation
        self._num_asked = 0

    async def answer(self, sample: Sample) -> Answered:
        """Latency counts from the request to its last token; reading pictures is not part of it."""
        self._num_asked += 1
        mode: LatentMode = "off" if self._ablation == "off" else "on"
        context = self._settings.context_tokens(self._asking.checkpoint.context_tokens)
        request = await asyncio.to_thread(
            self._asking.request, sample, f"{self._ablation}-{self._num_asked}", mode, context
        )
        ids: list[int] = []
        reason: StopReason | None = None
        began_s = time.monotonic()
        async with aclosing(self._engine.generate(request)) as deltas:
            async for delta in deltas:
                ids += delta.ids
                reason = delta.stop_reason
        latency_s = time.monotonic() - began_s
        machine = StepMachine(self._spec, self._asking.vocabulary)
        updates = [*machine.feed(ids), *machine.finish()]
        return Answered(
            text="".join(update.text for update in updates if isinstance(update, TextAdded)),
            whole_text=self._asking.prompts.text_of((*request.prompt_ids, *ids)),
            num_output_tokens=len(ids),
            num_latents=machine.num_latent_steps,
            latency_s=round(latency_s, 6),
            is_cut=reason == "length",
        )


class EngineAnswerers:
    """Starts an engine when an ablation needs another one than runs, never two at once."""

    def __init__(self, asking: Asking, engine: EngineName, samples: Sequence[Sample], *, concurrency: int) -> None:
        """samples: those of the data, of which some lend their latents to ``swap``."""
        self._asking = asking
        self._engine_name = engine
        self._samples = samples
        self._max_images = max((len(sample.images) for sample in samples), default=0)
        self._concurrency = concurrency
        self._engine: Engine | None = None
        self._settings = self.settings("none")

    def settings(self, ablation: LatentAblation) -> RunnerSettings:
        """From the environment (``ILVR_RUNNER_*``) and what an evaluation decides. Raises ``BadSettings``."""
        return load_settings(
            model=self._asking.folder,
            engine=self._engine_name,
            latent_ablation=ablation,
            max_num_seqs=self._concurrency,
            max_images=self._max_images,
        )

    async def start(self, ablation: Ablation) -> EngineAnswerer:
        fed = FED[ablation]
        if self._engine is None or self._settings.latent_ablation != fed:
            await self.aclose()
            self._settings = self.settings(fed)
            donors = self._donors() if fed == "swap" else None
            self._engine = start_engine(self._settings, donors).engine
            await self._engine.prepare()
        return EngineAnswerer(self._engine, self._asking, self._settings, ablation)

    async def aclose(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.aclose()

    def _donors(self) -> list[EngineRequest]:
        """Samples from all over the data, which is often in order of size; those that cannot be asked are left out."""
        every = -(-len(self._samples) // MAX_DONORS)
        context = self._settings.context_tokens(self._asking.checkpoint.context_tokens)
        donors = []
        for number, sample in enumerate(self._samples[::every]):
            try:
                donors.append(self._asking.request(sample, f"donor-{number}", "on", context))
            except RequestError:
                continue  # that sample's own entry in the results says what is wrong with it
        return donors


def _image(path: Path) -> EngineImage:
    """Through an array, which leaves the file's metadata behind: vLLM's loader would act on it."""
    rgb = Image.fromarray(np.asarray(load_image(path)))
    digest = sha256(f"{rgb.size}".encode() + rgb.tobytes()).hexdigest()
    return EngineImage(id=f"img_{digest}", rgb=rgb)
