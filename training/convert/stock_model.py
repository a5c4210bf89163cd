"""Whether tensors are exactly those of the model that transformers builds from a config. No weight is read."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.utils import logging

from contracts.errors import BadCheckpoint

SHOWN = 3  # of possibly hundreds of wrong names


def is_tied(config: Mapping[str, Any]) -> bool:
    """Whether the head is the token embedding, as transformers reads the config."""
    return bool(_parsed(config).tie_word_embeddings)


def _parsed(config: Mapping[str, Any]) -> Any:
    return Qwen2_5_VLConfig.from_dict(deepcopy(dict(config)))  # it writes into nested values


def check_tensors(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], folder: Path) -> None:
    """Load tensors of these names and shapes into the stock model on the meta device; old and new names both do.

    Raises:
        BadCheckpoint: one is missing, unexpected or of another shape, or the config builds no model.
    """
    tensors = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    _check_loading(folder, None, config, state_dict=tensors)


def check_folder(folder: Path, config: Mapping[str, Any]) -> None:
    """The same for the files of a folder, found as transformers finds them."""
    _check_loading(folder, folder, config)


def _check_loading(folder: Path, files: Path | None, config: Mapping[str, Any], **source: Any) -> None:
    model_class: Any = Qwen2_5_VLForConditionalGeneration  # its annotation does not know of loading info
    try:
        parsed = _parsed(config)
        with _quiet():
            _, found = model_class.from_pretrained(
                files,
                config=parsed,
                device_map="meta",
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                **source,
            )
    except Exception as error:  # whatever a config that makes no sense leads to
        why = str(error).strip().splitlines() or [type(error).__name__]
        raise BadCheckpoint(f"{folder}: no model can be built from config.json: {why[-1].strip()}") from error
    wrong_shapes = [f"{name} {tuple(is_)} instead of {tuple(wanted)}" for name, is_, wanted in found["mismatched_keys"]]
    for problem, names in (
        ("tensors are missing", found["missing_keys"]),
        ("tensors belong to no part of the model", found["unexpected_keys"]),
        ("tensors have another shape than config.json says", wrong_shapes),
    ):
        if names:
            shown = ", ".join(sorted(names)[:SHOWN]) + (", …" if len(names) > SHOWN else "")
            raise BadCheckpoint(f"{folder}: {len(names)} {problem}: {shown}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bar and the table of names that loading prints."""
    untyped: Any = logging
    level, has_bar = untyped.get_verbosity(), untyped.is_progress_bar_enabled()
    untyped.set_verbosity_error()
    untyped.disable_progress_bar()
    try:
        yield
    finally:
        untyped.set_verbosity(level)
        if has_bar:
            untyped.enable_progress_bar()
