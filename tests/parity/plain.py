"""The plain transformers engine without an event loop: what to expect where nothing is recorded."""

from torch import Tensor

from model_runner.ablation.donors import OWN
from model_runner.checkpoint import Checkpoint
from model_runner.engine.base import EngineRequest
from model_runner.engine.transformers_engine import TransformersEngine
from model_runner.generation import GenerationDefaults
from model_runner.settings import RunnerSettings


class Plain:
    """One request after the other, remembered: tests ask the same again and again."""

    def __init__(self, engine: TransformersEngine) -> None:
        self._engine = engine
        self._answers: dict[object, tuple[tuple[int, ...], dict[int, Tensor]]] = {}

    @classmethod
    def load(cls, checkpoint: Checkpoint, defaults: GenerationDefaults) -> "Plain":
        return cls(TransformersEngine.start(RunnerSettings(model=checkpoint.folder), checkpoint, defaults))

    def answer(self, request: EngineRequest) -> tuple[tuple[int, ...], dict[int, Tensor]]:
        """Ids, and what was fed at every inner pad, by position: those of the prompt too."""
        key = (request.prompt_ids, tuple(image.id for image in request.images), request.sampling)
        if key not in self._answers:
            deltas = list(self._engine._deltas(request, 0.0, OWN))
            self._answers[key] = tuple(token for delta in deltas for token in delta.ids), self._engine._latents
        return self._answers[key]
