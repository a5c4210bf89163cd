"""A recipe by name, or from a TOML or JSON file that changes some values of a named one.

A file holds values of ``StageRecipe`` by name, and ``base``, the named recipe that gives the rest::

    base = "comt_7b_released"
    learning_rate = 2e-5
    lora = true
"""

import difflib
import json
import math
import tomllib
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from contracts.errors import BadSettings
from training.recipes import LORA_TARGETS, RECIPES, Stage, StageRecipe

# What a file cannot change: the command says the stage, and the name tells recipes apart.
FIXED_KEYS = ("name", "stage")
POSITIVE = (
    "latent_size",
    "top_p",
    "learning_rate",
    "adam_epsilon",
    "epochs",
    "batch_size",
    "accumulation",
    "max_grad_norm",
    "lora_rank",
    "lora_alpha",
    "max_length",
    "save_every_steps",
    "keep_checkpoints",
)
NOT_NEGATIVE = (
    "weight_decay",
    "warmup_steps",
    "target_noise",
    "cross_entropy_weight",
    "alignment_weight",
    "seed",
)
BELOW_ONE = ("ema_decay", "adam_betas", "lora_dropout")


def load_recipe(name_or_file: str, stage: Stage) -> StageRecipe:
    """The recipe for a stage.

    Raises:
        BadSettings: no such name or file, a file that cannot be read, an unknown key or an impossible value.
    """
    if name_or_file in RECIPES:
        return RECIPES[name_or_file](stage)
    path = Path(name_or_file)
    if path.suffix not in (".toml", ".json"):
        raise BadSettings(
            f"no recipe {name_or_file!r}; there is {', '.join(RECIPES)}, or give a .toml or .json file"
            f"{_meant(name_or_file, list(RECIPES))}"
        )
    values = _read(path)
    base = values.pop("base", None)
    if base not in RECIPES:
        raise BadSettings(f"{path}: base must name a recipe to start from, one of {', '.join(RECIPES)}; found {base!r}")
    changed: dict[str, Any] = {key: _value(path, key, value) for key, value in values.items()}
    return checked(replace(RECIPES[base](stage), name=path.stem, **changed), str(path))


def checked(recipe: StageRecipe, where: str) -> StageRecipe:
    """The recipe itself.

    Raises:
        BadSettings: a number is out of range, or values contradict each other.
    """
    for key in POSITIVE:
        if not getattr(recipe, key) > 0:
            raise BadSettings(f"{where}: {key} must be greater than 0, found {getattr(recipe, key)}")
    for key in NOT_NEGATIVE:
        if not getattr(recipe, key) >= 0:
            raise BadSettings(f"{where}: {key} must not be negative, found {getattr(recipe, key)}")
    for key in BELOW_ONE:
        value = getattr(recipe, key)
        if not all(0 <= one < 1 for one in (value if isinstance(value, tuple) else (value,))):
            raise BadSettings(f"{where}: {key} must be at least 0 and below 1, found {_shown(value)}")
    for key, value in asdict(recipe).items():
        if value == math.inf:
            raise BadSettings(f"{where}: {key} must be a number, found inf")
    unknown = [name for name in recipe.lora_targets if name not in LORA_TARGETS]
    if unknown or not recipe.lora_targets:
        found = f"found {unknown[0]!r}{_meant(unknown[0], list(LORA_TARGETS))}" if unknown else "found none"
        raise BadSettings(f"{where}: lora_targets must be some of {', '.join(LORA_TARGETS)}; {found}")
    if recipe.stage == "stage2" and recipe.attention == "flash_attention_2" and recipe.batch_size > 1:
        raise BadSettings(
            f"{where}: stage 2 with flash_attention_2 needs batch_size 1, since it takes no mask; use sdpa"
        )
    return recipe


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        values = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise BadSettings(f"{path}: {error.strerror or error}") from None
    except ValueError as error:  # of both parsers, and of bytes that are no UTF-8
        raise BadSettings(f"{path}: not {path.suffix[1:].upper()} that can be read: {error}") from None
    if not isinstance(values, dict):
        raise BadSettings(f"{path}: must hold names and values")
    return values


def _value(path: Path, key: str, value: object) -> object:
    hints = get_type_hints(StageRecipe)
    known = [field.name for field in fields(StageRecipe) if field.name not in FIXED_KEYS]
    if key not in known:
        raise BadSettings(f"{path}: unknown key {key!r}{_meant(key, known)}")
    if isinstance(value, list):
        value = tuple(value)
    value = _as_floats(value, hints[key])
    if not _fits(value, hints[key]):
        raise BadSettings(f"{path}: {key} must be {_told(hints[key])}, found {_shown(value)!r}")
    return value


def _as_floats(value: object, hint: Any) -> object:
    """A whole number where the recipe has one with a fraction, also within a list."""
    if isinstance(value, tuple) and get_origin(hint) is tuple:
        return tuple(_as_floats(item, get_args(hint)[0]) for item in value)
    return float(value) if type(value) is int and hint is float else value


def _fits(value: object, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in arguments
    if origin is tuple:
        if not isinstance(value, tuple) or (arguments[-1] is not ... and len(value) != len(arguments)):
            return False
        return all(_fits(item, arguments[0]) for item in value)
    return type(value) is hint


def _told(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " or ".join(repr(one) for one in get_args(hint))
    if get_origin(hint) is tuple:
        return f"a list, each {_told(get_args(hint)[0])}"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[hint]


def _shown(value: object) -> object:
    """As a file has it."""
    return list(value) if isinstance(value, tuple) else value


def _meant(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""
