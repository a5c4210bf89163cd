"""The names of all keys. ``docs/redis.md`` says what is in them.

What changes together lies in one slot of a Redis Cluster: the part in braces decides which.
"""

import hashlib

SCHEMA_VERSION = 1
QUEUE = (
    "jobs",
    "waiting",
    "open",
    "load",
    "room",
    "turns",
    "waiting_of",
    "open_of",
    "heard",
    "runners",
    "reserved",
    "had",
    "ended",
    "deadlines",
    "takes",
    "cancels",
)
"""In the order in which ``lua/queue.lua`` names them."""
IMAGES = ("index", "used", "pins", "total")


class Keys:
    def __init__(self, prefix: str) -> None:
        self._base = base = f"{prefix}:{SCHEMA_VERSION}:"
        self.queue = tuple(f"{base}{{queue}}:{name}" for name in QUEUE)
        self.images = tuple(f"{base}{{images}}:{name}" for name in IMAGES)
        self.jobs = self.queue[QUEUE.index("jobs")]
        self.cancels = self.queue[QUEUE.index("cancels")]

    def response(self, response_id: str) -> tuple[str, str]:
        """State and events; the second is also the channel on which their growth is told."""
        tag = f"{self._base}{{{response_id}}}:"
        return f"{tag}state", f"{tag}events"

    def readers(self, response_id: str) -> tuple[str, str, str]:
        return *self.response(response_id), f"{self._base}{{{response_id}}}:readers"

    def file(self, image_id: str) -> tuple[str]:
        return (f"{self._base}{{{image_id}}}:file",)

    def bucket(self, owner: str) -> tuple[str]:
        return (f"{self._base}{{owner-{_short(owner)}}}:bucket",)

    def claim(self, owner: str, key: str) -> tuple[str]:
        return (f"{self._base}{{owner-{_short(owner)}}}:claim:{_short(key)}",)


def is_key_part(name: str) -> bool:
    """Whether an id can stand between braces, where it decides about the slot."""
    return bool(name) and len(name) <= 200 and not set(name) & set("{}")


def _short(name: str) -> str:
    """Of anything a caller may have sent."""
    return hashlib.sha256(name.encode()).hexdigest()[:32]
