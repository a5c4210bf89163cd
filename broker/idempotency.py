"""Which response an ``Idempotency-Key`` stands for."""

from contracts.errors import IdempotencyConflict
from contracts.jobs import Idempotency, Job


class IdempotencyKeys:
    """Of each owner. A key is known for as long as its response, which whoever forgets it has to say."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[str, str]] = {}  # (owner, key): (hash of the body, response)
        self._key_of: dict[str, tuple[str, str]] = {}

    def knows(self, owner: str, key: str) -> bool:
        return (owner, key) in self._known

    def find(self, owner: str, idempotency: Idempotency) -> str | None:
        """The response that was asked for with this key. Raises ``IdempotencyConflict``."""
        body_sha256, response_id = self._known.get((owner, idempotency.key), ("", None))
        if response_id is not None and body_sha256 != idempotency.body_sha256:
            raise IdempotencyConflict("This Idempotency-Key came with another request before; use a new key.")
        return response_id

    def keep(self, job: Job, idempotency: Idempotency) -> None:
        where = (job.owner, idempotency.key)
        self._known[where] = (idempotency.body_sha256, job.response_id)
        self._key_of[job.response_id] = where

    def forget_response(self, response_id: str) -> None:
        where = self._key_of.pop(response_id, None)
        if where is not None:
            del self._known[where]
