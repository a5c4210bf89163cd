"""Token ids into bytes, for tokenizers of Qwen's kind (byte-level BPE)."""

from functools import cache
from pathlib import Path
from typing import Any

from contracts.errors import BadCheckpoint
from contracts.manifest import read_json

NO_BYTE_LEVEL_BPE = "not a byte-level BPE tokenizer, as Qwen2.5-VL has"


class Vocabulary:
    """``bytes_of(id)``: what a token stands for in a text; nothing for special and added tokens and unknown ids."""

    def __init__(self, bytes_by_id: dict[int, bytes]) -> None:
        self._bytes_by_id = bytes_by_id

    def bytes_of(self, token_id: int) -> bytes:
        return self._bytes_by_id.get(token_id, b"")


def read_vocabulary(folder: Path) -> Vocabulary:
    """From ``tokenizer.json``. Raises ``BadCheckpoint`` if it is not a byte-level BPE."""
    tokenizer = read_tokenizer(folder)
    byte_of = _byte_by_character()
    added = {token["id"] for token in tokenizer["added_tokens"]}
    try:
        return Vocabulary(
            {
                token_id: bytes(byte_of[character] for character in token)
                for token, token_id in tokenizer["model"]["vocab"].items()
                if token_id not in added
            }
        )
    except KeyError as error:
        raise BadCheckpoint(f"{folder}/tokenizer.json is {NO_BYTE_LEVEL_BPE}: a token contains {error}") from error


def read_tokenizer(folder: Path) -> dict[str, Any]:
    """Content of ``tokenizer.json``. Raises ``BadCheckpoint`` if it is not a byte-level BPE."""
    tokenizer = read_json(folder / "tokenizer.json")
    parts = [tokenizer.get(name) or {} for name in ("model", "decoder")]
    kinds = [part.get("type") if isinstance(part, dict) else None for part in parts]
    if kinds != ["BPE", "ByteLevel"] or not isinstance(tokenizer.get("added_tokens"), list):
        raise BadCheckpoint(f"{folder}/tokenizer.json is {NO_BYTE_LEVEL_BPE}")
    return tokenizer


@cache
def _byte_by_character() -> dict[str, int]:
    """The character that stands for each byte in a byte-level vocabulary (GPT-2): itself if printable, else one from
    256 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}
