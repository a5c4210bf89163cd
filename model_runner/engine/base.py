"""The engine Protocol. Cancelling is closing the iterator; ``Raises`` is part of the contract."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Literal, Protocol

from PIL.Image import Image

from contracts.jobs import LatentMode
from model_runner.settings import LatentAblation

StopReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineImage:
    """A picture in mode RGB; ``id`` names its content, so that it is encoded once however often it is asked about."""

    id: str
    rgb: Image


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingSettings:
    """All decided: nothing is left to the checkpoint. Temperature 0 is greedy; top_k 0 and top_p 1 are off."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRequest:
    """``prompt_ids`` hold one image token for each image, in order; the engine makes them as many as patches."""

    request_id: str
    prompt_ids: tuple[int, ...]
    images: tuple[EngineImage, ...] = ()
    sampling: SamplingSettings
    latent_mode: LatentMode = "on"


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptInfo:
    """Token counts with images expanded, and the time until the engine scheduled the request."""

    num_tokens: int
    num_image_tokens: int
    num_cached_tokens: int
    queue_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenDelta:
    """Tokens since the previous delta. The first has ``prompt``, the last and only the last ``stop_reason``.

    The end token, if that is what ended it, is among the ids.
    """

    ids: tuple[int, ...]
    prompt: PromptInfo | None = None
    stop_reason: StopReason | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats:
    """Counts since the start; ``num_running`` and ``num_waiting`` are of the last step."""

    num_running: int = 0
    num_waiting: int = 0
    num_preemptions: int = 0
    model: dict[str, int] = field(default_factory=dict)


class Engine(Protocol):
    name: str

    @property
    def latent_ablation(self) -> LatentAblation:
        """What is fed back in place of latents; ``none``: the model's own hidden states."""
        ...

    async def prepare(self) -> None:
        """Finish the start, for what needs an event loop; :meth:`generate` waits for it too. The second time nothing.

        Raises ``BadSettings`` if the engine cannot do what it was started for.
        """
        ...

    def generate(self, request: EngineRequest) -> AsyncGenerator[TokenDelta, None]:
        """Stream deltas in order. Closing the iterator frees the request's slot and cache.

        Raises:
            PromptTooLong: the prompt leaves no room in the context, or holds more latents than can be replayed.
            GenerationFailed: this request failed; others go on.
            EngineDead: the engine process is gone; no later call can succeed.
        """
        ...

    async def is_alive(self) -> bool:
        """Whether the engine process is there. Quick; whether it also answers is what :meth:`stats` shows."""
        ...

    async def stats(self) -> EngineStats:
        """Asks the engine, which answers between two steps. Raises ``EngineDead``."""
        ...

    async def aclose(self) -> None:
        """End the engine and every process of it."""
        ...
