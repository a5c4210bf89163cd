"""Latent ids and K of a checkpoint, from every file that says something about them, and which token ids are in use."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.errors import BadCheckpoint, InvalidRequest
from contracts.manifest import LATENT_FIELDS, read_json

# As the published code names them.
LATENT_TOKENS = {
    "latent_token_id": "<|latent_pad|>",
    "latent_start_id": "<|latent_start|>",
    "latent_end_id": "<|latent_end|>",
}


@dataclass(frozen=True)
class Tokens:
    """``latents``: the four fields of the manifest. ``largest_id``: the largest id that a text or config can name.

    ``rewritten``: tokenizer files with latent tokens added, by name; empty if they were there.
    """

    latents: Mapping[str, int]
    largest_id: int
    rewritten: Mapping[str, str]


def find_tokens(
    folder: Path, config: Mapping[str, Any], manifest: Mapping[str, Any], files: Mapping[str, Path], size: int | None
) -> Tokens:
    """``files`` is where each tokenizer file is; ``size`` is K as the caller has it, if it does.

    Raises:
        BadCheckpoint: an id or K is said nowhere, or two files disagree.
    """
    tokenizer = read_json(files["tokenizer.json"])
    ids = _added_ids(tokenizer, files["tokenizer.json"])
    listed = read_json(files["added_tokens.json"]) if "added_tokens.json" in files else {}
    latents: dict[str, int] = {}
    for field in LATENT_FIELDS:
        token = LATENT_TOKENS.get(field, "")
        said = {
            "config.json": config.get(field),
            "ilvr.json": manifest.get(field),
            f"tokenizer.json ({token})": ids.get(token),
            f"added_tokens.json ({token})": listed.get(token),
            "--latent-size": size if field == "latent_size" else None,
        }
        latents[field] = _agreed(folder, field, {where: value for where, value in said.items() if value is not None})
    missing = {token: latents[field] for field, token in LATENT_TOKENS.items() if token not in ids}
    used = {*_tokenizer_ids(tokenizer), *_config_ids(config), *(latents[field] for field in LATENT_TOKENS)}
    return Tokens(latents, max(used), _with_tokens(missing, tokenizer, files))


def _agreed(folder: Path, field: str, said: Mapping[str, object]) -> int:
    if not said:
        if field == "latent_size":
            raise InvalidRequest(
                f"{folder} does not say K (latent_size): give it with --latent-size, 8 in the published recipes",
                param="latent_size",
            )
        raise BadCheckpoint(
            f"{folder}: {field} is not in config.json, nor {LATENT_TOKENS[field]} in tokenizer.json; is it ILVR's?"
        )
    (first, value), *others = said.items()
    if type(value) is not int or value < (1 if field == "latent_size" else 0):
        raise BadCheckpoint(f"{folder}: {field} is {value!r} in {first}, which it cannot be")
    for other, contradicting in others:
        if contradicting != value:
            raise BadCheckpoint(f"{folder}: {field} is {value} in {first} but {contradicting!r} in {other}")
    return value


def _added_ids(tokenizer: Mapping[str, Any], path: Path) -> dict[str, int]:
    try:
        return {token["content"]: int(token["id"]) for token in tokenizer["added_tokens"]}
    except (KeyError, TypeError, ValueError) as error:
        raise BadCheckpoint(f"{path} is no tokenizer: its added_tokens cannot be read") from error


def _tokenizer_ids(tokenizer: Mapping[str, Any]) -> set[int]:
    model = tokenizer.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    numbers = vocabulary.values() if isinstance(vocabulary, dict) else ()
    return {number for number in numbers if type(number) is int} | {token["id"] for token in tokenizer["added_tokens"]}


def _config_ids(config: Mapping[str, Any]) -> set[int]:
    """Ids that ``config.json`` names: of image, video, vision marks, end of text."""
    sections = [config, config.get("text_config") or {}]
    named = (value for section in sections for name, value in section.items() if name.endswith("_token_id"))
    return {value for value in named if type(value) is int}


def _with_tokens(
    missing: Mapping[str, int], tokenizer: Mapping[str, Any], files: Mapping[str, Path]
) -> Mapping[str, str]:
    """The tokenizer files with the missing tokens in them: the tokenizer of a base model has none of them.

    Raises:
        BadCheckpoint: their ids are not those that come next in the tokenizer, so it would give them others.
    """
    if not missing:
        return {}
    path = files["tokenizer.json"]
    first = max(_tokenizer_ids(tokenizer), default=-1) + 1
    free = range(first, first + len(missing))
    if sorted(missing.values()) != list(free):
        raise BadCheckpoint(
            f"{path} has no {', '.join(missing)}, and would give them the ids {', '.join(map(str, free))} and not "
            f"{', '.join(map(str, missing.values()))}; it is not the tokenizer of this checkpoint"
        )
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    in_order = sorted(missing.items(), key=lambda item: item[1])
    added = [{"id": number, "content": token, **flags} for token, number in in_order]
    rewritten = {"tokenizer.json": {**tokenizer, "added_tokens": [*tokenizer["added_tokens"], *added]}}
    if "tokenizer_config.json" in files:
        config = read_json(files["tokenizer_config.json"])
        decoder = {str(number): {"content": token, **flags} for token, number in in_order}
        config["added_tokens_decoder"] = {**(config.get("added_tokens_decoder") or {}), **decoder}
        rewritten["tokenizer_config.json"] = config
    if "added_tokens.json" in files:
        rewritten["added_tokens.json"] = {**read_json(files["added_tokens.json"]), **missing}
    return {name: json.dumps(content, indent=2, ensure_ascii=False) + "\n" for name, content in rewritten.items()}
