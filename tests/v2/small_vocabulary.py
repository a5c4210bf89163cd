"""A recorded checkpoint with the tokens of its recordings alone.

Triton's interpreter walks over the vocabulary once for every token of every request: 151,936 take it most of a second.
What the published code chose is the greatest of them all, and so the greatest of any that it is among. So a checkpoint
that has only the ids of prompts and answers, and a few others, must give the same answers; and does it in milliseconds.
"""

import json
from collections.abc import AsyncGenerator, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from model_runner.engine.base import EngineRequest, TokenDelta
from tests.parity.traces import read_traces

NUM_OTHERS = 500  # ids that are never right, so that something else could be chosen
TABLES = ("lm_head.weight", "model.embed_tokens.weight")


class SmallVocabulary:
    """old_ids: of the recorded vocabulary, by new id."""

    def __init__(self, config: dict[str, Any], name: str) -> None:
        special = {value for key, value in config.items() if key.endswith("_id") and isinstance(value, int)}
        spoken = {token for trace in read_traces(name) for token in (*trace.expanded_ids, *trace.output_ids)}
        others = range(1000, 1000 + NUM_OTHERS)
        self.old_ids = sorted(special | spoken | set(others))
        self._new_ids = {old: new for new, old in enumerate(self.old_ids)}

    def new(self, ids: Iterable[int]) -> tuple[int, ...]:
        return tuple(self._new_ids[token] for token in ids)

    def old(self, ids: Iterable[int]) -> tuple[int, ...]:
        return tuple(self.old_ids[token] for token in ids)


def cut(folder: Path, name: str, out: Path) -> SmallVocabulary:
    """Write the checkpoint of ``folder`` to ``out`` with as few tokens as its recordings need."""
    config = json.loads((folder / "config.json").read_text())
    vocabulary = SmallVocabulary(config, name)
    weights = load_file(folder / "model.safetensors")
    rows = torch.tensor(vocabulary.old_ids)
    for table in TABLES:
        if table in weights:
            weights[table] = weights[table][rows].clone()
    out.mkdir(parents=True)
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    defaults = json.loads((folder / "generation_config.json").read_text())
    for told, file in ((config, "config.json"), (defaults, "generation_config.json")):
        for key, value in told.items():
            if key.endswith("_id") and isinstance(value, int):
                (told[key],) = vocabulary.new([value])
            elif key.endswith("_id") and isinstance(value, list):
                told[key] = list(vocabulary.new(value))
        if "vocab_size" in told:
            told["vocab_size"] = len(rows)
        (out / file).write_text(json.dumps(told))
    _write_tokenizer(vocabulary, out)
    (out / "preprocessor_config.json").write_text((folder / "preprocessor_config.json").read_text())
    return vocabulary


def _write_tokenizer(vocabulary: SmallVocabulary, out: Path) -> None:
    """A word for each id. Requests bring ids; vLLM wants a tokenizer all the same."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit

    tokenizer = Tokenizer(WordLevel({f"t{old}": new for new, old in enumerate(vocabulary.old_ids)}, unk_token="t0"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.save(str(out / "tokenizer.json"))
    (out / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))


class Translated:
    """An engine on a small vocabulary that is spoken to in the recorded ids; in all else it is the engine."""

    def __init__(self, engine: Any, vocabulary: SmallVocabulary) -> None:
        self._engine = engine
        self._vocabulary = vocabulary

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def generate(self, request: EngineRequest) -> AsyncGenerator[TokenDelta, None]:
        asked = replace(request, prompt_ids=self._vocabulary.new(request.prompt_ids))
        deltas = self._engine.generate(asked)
        try:
            async for delta in deltas:
                yield replace(delta, ids=self._vocabulary.old(delta.ids))
        finally:
            await deltas.aclose()
