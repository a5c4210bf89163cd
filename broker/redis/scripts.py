"""The Lua scripts: what has to change together, changes in one of them.

Each is written so that the same call again, because its answer was lost, does nothing more and answers the same.
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Script:
    source: bytes
    sha: str


# What scripts of a slot have in common stands before each of them.
COMMON = {
    "response": (
        "create",
        "open",
        "void",
        "discard",
        "look",
        "describe",
        "job",
        "tokens",
        "read",
        "lease",
        "append",
        "release",
        "cancel",
        "note_reading",
        "cancel_unread",
    ),
    "queue": (
        "admit",
        "check_room",
        "take",
        "untake",
        "reoffer",
        "settle",
        "ask_runner",
        "asked",
        "heartbeat",
        "runners",
        "farewell",
        "held",
        "sweep",
        "overdue",
        "walk",
    ),
    "images": ("image_reserve", "image_use", "image_forget", "image_pin", "image_unpin", "image_sweep"),
    "": ("file_write", "file_read", "file_keep", "file_drop", "claim", "claimed", "unclaim", "keep_claim", "spend"),
}


@cache
def script(name: str) -> Script:
    """Raises ``KeyError``."""
    common = {each: part for part, names in COMMON.items() for each in names}[name]
    folder = files("broker.redis") / "lua"
    parts = [(folder / f"{part}.lua").read_bytes() for part in (common, name) if part]
    source = b"\n".join(parts)
    return Script(source, hashlib.sha1(source).hexdigest())
