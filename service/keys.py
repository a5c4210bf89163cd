"""API keys: what is written down of them, and whose a token is.

A key is 256 random bits, so there is nothing to guess that a slow hash would have to slow down: one SHA-256 keeps
a stolen list from being used, and costs a request about a microsecond. Of a key only its hash is ever kept.
"""

import hashlib
import hmac
import json
import re
import secrets
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic_core import ErrorDetails

from contracts.errors import BadSettings
from contracts.jobs import RateLimit
from service.auth import Caller, Scope

TOKEN_PREFIX = "ilvr_"  # so that a scanner for leaked secrets can know one
TOKEN_BYTES = 32
# Longer ones are wrong without being hashed.
MAX_TOKEN_CHARS = 256
# Each request is compared with each key: this bounds what a wrong one costs to a fraction of a millisecond.
MAX_KEYS = 1000
OWNER_HASH_CHARS = 12


class KeyEntry(BaseModel):
    """What stands under the name of a key. Its order is that of the written line."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1)]
    rate_per_minute: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    burst: Annotated[int, Field(ge=1)] | None = None
    max_open: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _a_bucket_has_both(self) -> Self:
        if (self.rate_per_minute is None) != (self.burst is None):
            raise ValueError("rate_per_minute and burst go together")
        return self

    def caller(self, name: str) -> Caller:
        """The owner id names the key for people and changes with it, so that a new key of the name sees nothing old."""
        limit = None
        if self.rate_per_minute is not None and self.burst is not None:
            limit = RateLimit(per_minute=self.rate_per_minute, burst=self.burst)
        return Caller(
            owner=f"{name}.{self.sha256[:OWNER_HASH_CHARS]}",
            scopes=frozenset(self.scopes),
            rate_limit=limit,
            max_open=self.max_open,
        )


NAME = re.compile(r"[A-Za-z0-9_-]{1,40}")
KeyName = Annotated[str, Field(pattern=rf"^{NAME.pattern}$")]
_ENTRIES = TypeAdapter(Annotated[dict[KeyName, KeyEntry], Field(max_length=MAX_KEYS)])


class KeyRing:
    """The keys that are good. Raises ``BadSettings`` if two of them are the same."""

    def __init__(self, entries: dict[str, KeyEntry]) -> None:
        self._callers = tuple((bytes.fromhex(entry.sha256), entry.caller(name)) for name, entry in entries.items())
        if len({digest for digest, _ in self._callers}) < len(self._callers):
            raise BadSettings("two names have the same sha256; one key has one name")

    def __len__(self) -> int:
        return len(self._callers)

    def __iter__(self) -> Iterator[Caller]:
        return (caller for _, caller in self._callers)

    def find(self, token: str) -> Caller | None:
        """Compares with all, in a time that does not depend on how much of which of them is right."""
        if len(token) > MAX_TOKEN_CHARS:
            return None
        digest = hashlib.sha256(token.encode()).digest()
        found = None
        for known, caller in self._callers:
            if hmac.compare_digest(digest, known):
                found = caller
        return found


def parse_keys(text: str, source: str) -> KeyRing:
    """TOML, a line for each key: ``NAME = {sha256 = "…", scopes = ["reason"]}``; or the same as a JSON object.

    Raises ``BadSettings``, which names the key and the field at fault and never quotes what stands there.
    """
    try:
        table = json.loads(text, object_pairs_hook=_once) if text.lstrip().startswith("{") else tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # both parsers' own errors are ValueErrors
        raise BadSettings(f"{source}: not TOML, and no JSON object: {error}") from None
    try:
        return KeyRing(_ENTRIES.validate_python(table))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise BadSettings(f"{source}: {_where(first['loc'])}: {_what(first)}") from None
    except BadSettings as error:
        raise BadSettings(f"{source}: {error}") from None


def new_token() -> str:
    return TOKEN_PREFIX + secrets.token_urlsafe(TOKEN_BYTES)


def hash_of(token: str) -> str:
    """As it stands in the file."""
    return hashlib.sha256(token.encode()).hexdigest()


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """JSON objects in which no name comes twice, as TOML has it anyway."""
    table: dict[str, Any] = {}
    for name, value in pairs:
        if name in table:
            raise ValueError(f"{name!r} stands there twice")
        table[name] = value
    return table


def _where(path: Sequence[str | int]) -> str:
    """A name that is none may be a key, put there by mistake."""
    if not path:
        return "keys"
    name = str(path[0])
    shown = name if NAME.fullmatch(name) and not name.startswith(TOKEN_PREFIX) else "a name"
    return ".".join([shown, *(str(part) for part in path[1:] if part != "[key]")])


def _what(error: ErrorDetails) -> str:
    if error["loc"][-1:] == ("[key]",):
        return "it has 1 to 40 letters, digits, - and _"
    return error["msg"].removeprefix("Value error, ")
