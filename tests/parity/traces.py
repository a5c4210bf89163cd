"""The recorded traces of the published code (``tests/golden/README.md``) and requests made from them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from contracts.jobs import Sampling
from model_runner.engine.base import Engine, EngineImage, EngineRequest, PromptInfo, SamplingSettings
from model_runner.generation import GenerationDefaults

GOLDEN = Path(__file__).parent.parent / "golden"
IMAGE_ID, PAD_ID, START_ID, END_ID, K = 151655, 151665, 151666, 151667, 8
NAMES = ("b", "c")
ATOL = 1e-3  # of vectors, recorded or of the plain engine


@dataclass(frozen=True)
class Trace:
    """One recorded prompt: its ids with images collapsed to one token each, and what the published code answered."""

    index: int
    question: str
    files: tuple[str, ...]
    prompt_ids: tuple[int, ...]
    expanded_ids: tuple[int, ...]
    output_ids: tuple[int, ...]
    steps: list[dict[str, Any]]

    @property
    def images(self) -> tuple[EngineImage, ...]:
        return tuple(load_image(name) for name in self.files)

    @property
    def latents(self) -> dict[int, dict[str, Any]]:
        """What the published code fed, by position: the first 8 components and the norm."""
        fed = [step for step in self.steps if step["feed"] == "embeds"]
        return {len(self.expanded_ids) + step["fed_at_output_index"]: step["fed"] for step in fed}

    @property
    def blocks(self) -> list[range]:
        """Where whole latent blocks stand in the answer: from START to the END that closes it, pads between."""
        found = []
        for start, token in enumerate(self.output_ids):
            end = start + 1
            while end < len(self.output_ids) and self.output_ids[end] == PAD_ID:
                end += 1
            if token == START_ID and start + 1 < end < len(self.output_ids) and self.output_ids[end] == END_ID:
                found.append(range(start, end + 1))
        return found


def read_traces(name: str) -> list[Trace]:
    recorded = json.loads((GOLDEN / f"generate-{name}.json").read_text())
    return [
        Trace(
            index=prompt["index"],
            question=prompt["question"],
            files=tuple(prompt["images"]),
            prompt_ids=collapse(prompt["input_ids"]),
            expanded_ids=tuple(prompt["input_ids"]),
            output_ids=tuple(prompt["output_ids"]),
            steps=prompt["steps"],
        )
        for prompt in recorded["prompts"]
    ]


def check_latents(fed: dict[int, Any], trace: Trace, end: int) -> None:
    """Vectors that were fed, by position, are the recorded ones, and those of all positions before ``end``."""
    recorded = {at: latent["first8"] for at, latent in trace.latents.items() if at < end}
    assert fed.keys() == recorded.keys()
    for at, first in recorded.items():
        np.testing.assert_allclose(fed[at][:8], first, atol=ATOL)


def load_image(name: str) -> EngineImage:
    rgb = Image.fromarray(np.asarray(Image.open(GOLDEN / "images" / name).convert("RGB")))
    return EngineImage(id=name, rgb=rgb)


def collapse(ids: list[int]) -> tuple[int, ...]:
    """One image token where a run of them stands."""
    return tuple(token for at, token in enumerate(ids) if not (token == IMAGE_ID and at and ids[at - 1] == IMAGE_ID))


def request_of(
    trace: Trace,
    defaults: GenerationDefaults,
    request_id: str,
    *,
    history: int = 0,
    max_tokens: int = 120,
    num_shifted: int = 0,
) -> EngineRequest:
    """A request whose prompt ends with the first ``history`` recorded output tokens.

    ``num_shifted`` tokens of text before all else move it to other positions; how it goes on is then not recorded.
    """
    asked = Sampling(temperature=0.0, max_tokens=max_tokens)
    sampling = defaults.resolve(asked, num_prompt_tokens=len(trace.expanded_ids), context_tokens=8192)
    return EngineRequest(
        request_id=request_id,
        prompt_ids=tuple(range(1000, 1000 + num_shifted)) + trace.prompt_ids + trace.output_ids[:history],
        images=trace.images,
        sampling=sampling,
    )


def text_request(ids: tuple[int, ...], request_id: str, *, max_tokens: int) -> EngineRequest:
    return EngineRequest(request_id=request_id, prompt_ids=ids, sampling=SamplingSettings(max_tokens=max_tokens))


async def answer(engine: Engine, request: EngineRequest) -> tuple[tuple[int, ...], PromptInfo]:
    """All ids of a response, and what was said of its prompt."""
    ids: list[int] = []
    info = None
    async for delta in engine.generate(request):
        ids += delta.ids
        info = info or delta.prompt
    assert info is not None
    return tuple(ids), info
