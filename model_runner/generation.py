"""Sampling as the checkpoint's ``generation_config.json`` decides, where the caller leaves it open.

The aim is what a user of the published code would get from ``model.generate()``: the file's values, and for what the
file leaves out the defaults of Hugging Face (``do_sample`` false; ``top_k`` 50 when sampling).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.errors import BadCheckpoint, PromptTooLong
from contracts.jobs import Sampling
from contracts.manifest import read_json
from model_runner.engine.base import SamplingSettings

GREEDY_BELOW = 0.01  # vLLM raises temperatures in (0, 0.01) to 0.01 and samples; published configs mean greedy by them
DEFAULT_MAX_TOKENS = 512
DEFAULT_TOP_K = 50


@dataclass(frozen=True)
class GenerationDefaults:
    """``end_ids``: the ids that end a text."""

    end_ids: tuple[int, ...]
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = DEFAULT_TOP_K
    repetition_penalty: float = 1.0

    def resolve(self, asked: Sampling, *, num_prompt_tokens: int, context_tokens: int) -> SamplingSettings:
        """What to sample with. Raises ``PromptTooLong`` if the context has no room for one token more."""
        room = context_tokens - num_prompt_tokens
        if room < 1:
            raise PromptTooLong(
                f"the prompt has {num_prompt_tokens} tokens, images included; the context holds {context_tokens}. "
                "Send a shorter question or conversation, or fewer or smaller images.",
                param="question",
            )
        temperature = self.temperature if asked.temperature is None else asked.temperature
        return SamplingSettings(
            max_tokens=min(DEFAULT_MAX_TOKENS if asked.max_tokens is None else asked.max_tokens, room),
            temperature=0.0 if temperature < GREEDY_BELOW else temperature,
            top_p=self.top_p if asked.top_p is None else asked.top_p,
            top_k=max(0, self.top_k if asked.top_k is None else asked.top_k),
            repetition_penalty=self.repetition_penalty
            if asked.repetition_penalty is None
            else asked.repetition_penalty,
            seed=asked.seed,
        )


def read_generation_defaults(folder: Path, config: dict[str, Any]) -> GenerationDefaults:
    """From ``generation_config.json``, if there is one. Raises ``BadCheckpoint``."""
    path = folder / "generation_config.json"
    content = read_json(path) if path.exists() else {}
    given = {name: value for name, value in content.items() if value is not None}  # null: not given
    text_config = config.get("text_config") or {}
    end = given.get("eos_token_id", config.get("eos_token_id", text_config.get("eos_token_id")))
    if end is None:
        raise BadCheckpoint(f"{folder}: neither generation_config.json nor config.json has an eos_token_id")
    samples = bool(given.get("do_sample", False))
    try:
        return GenerationDefaults(
            end_ids=tuple(int(one) for one in end) if isinstance(end, list) else (int(end),),
            temperature=float(given.get("temperature", 1.0)) if samples else 0.0,
            top_p=float(given.get("top_p", 1.0)),
            top_k=int(given.get("top_k", DEFAULT_TOP_K)),
            repetition_penalty=float(given.get("repetition_penalty", 1.0)),
        )
    except (TypeError, ValueError) as error:
        raise BadCheckpoint(f"{path}: a value is no number: {error}") from error
