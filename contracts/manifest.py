"""The checkpoint manifest ``ilvr.json``: what ILVR adds to a Qwen2.5-VL checkpoint folder.

A published checkpoint has no manifest; then the ids and K stand in its ``config.json`` under the same names, and
blocks are ``learned``, as in the code it was published with. Where both files name a value they must agree.
"""

from pathlib import Path
from typing import Any, Literal, get_args

import msgspec
from msgspec import Struct

from contracts.errors import BadCheckpoint

MANIFEST_FILE = "ilvr.json"
FORMAT = "ilvr-checkpoint/1"
LATENT_FIELDS = ("latent_token_id", "latent_start_id", "latent_end_id", "latent_size")

BlockRule = Literal["learned", "fixed"]


class LatentSpec(Struct, frozen=True, kw_only=True):
    """Ids of PAD, START and END, K, and the rule by which blocks end (``learned`` or ``fixed``)."""

    pad_id: int
    start_id: int
    end_id: int
    size: int
    rule: BlockRule


def read_latent_spec(folder: Path, *, rule: BlockRule | None = None) -> LatentSpec:
    """From ``config.json`` and ``ilvr.json`` of a checkpoint folder; ``rule`` overrides the checkpoint's.

    Raises:
        BadCheckpoint: a file is missing or not JSON, a value is missing, contradictory or impossible.
    """
    config = read_json(folder / "config.json")
    has_manifest = (folder / MANIFEST_FILE).exists()
    manifest: dict[str, Any] = read_json(folder / MANIFEST_FILE) if has_manifest else {"format": FORMAT}
    if manifest.get("format") != FORMAT:
        raise BadCheckpoint(f"{folder / MANIFEST_FILE}: format is {manifest.get('format')!r}, expected {FORMAT!r}")
    values: dict[str, int] = {}
    for field in LATENT_FIELDS:
        found = [source[field] for source in (config, manifest) if source.get(field) is not None]
        if not found:
            raise BadCheckpoint(
                f"{folder}: {field} is in neither config.json nor {MANIFEST_FILE}. If it is an ILVR checkpoint, write "
                f'{MANIFEST_FILE} with {{"format": "{FORMAT}", "latent_token_id": …, "latent_start_id": …, '
                '"latent_end_id": …, "latent_size": 8}.'
            )
        for value in found:
            if type(value) is not int:
                raise BadCheckpoint(f"{folder}: {field} must be a whole number, found {value!r}")
        if len(set(found)) > 1:
            raise BadCheckpoint(f"{folder}: {field} is {found[0]} in config.json but {found[1]} in {MANIFEST_FILE}")
        values[field] = found[0]
    pad_id, start_id, end_id, size = (values[name] for name in LATENT_FIELDS)
    if size < 1:
        raise BadCheckpoint(f"{folder}: latent_size (K) is {size}; a latent block needs at least 1 step")
    if len({pad_id, start_id, end_id}) < 3 or min(pad_id, start_id, end_id) < 0:
        raise BadCheckpoint(f"{folder}: latent ids must be three different ids, found {pad_id}, {start_id}, {end_id}")
    stated: BlockRule = manifest.get("latent_exit", "learned")
    if stated not in get_args(BlockRule):
        raise BadCheckpoint(f"{folder / MANIFEST_FILE}: latent_exit is {stated!r}, expected 'learned' or 'fixed'")
    return LatentSpec(pad_id=pad_id, start_id=start_id, end_id=end_id, size=size, rule=rule or stated)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of the checkpoint. Raises ``BadCheckpoint``."""
    try:
        content = msgspec.json.decode(path.read_bytes())
    except FileNotFoundError:
        raise BadCheckpoint(f"{path} does not exist; a checkpoint is a folder with config.json in it") from None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadCheckpoint(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise BadCheckpoint(f"{path} holds no JSON object")
    return content
