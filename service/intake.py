"""How many bytes of bodies this process holds at once, from their first byte until the broker has their images."""

from collections.abc import Iterator
from contextlib import contextmanager

from starlette.datastructures import Headers

from contracts.errors import Overloaded
from service.settings import ServiceSettings


class Intake:
    """Bounds the memory of uploads, however many come at once. The queue's own bounds are the broker's.

    How long one that comes slowly keeps its part is bounded by ``service.body_limit``.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self._max_body_bytes = settings.max_body_bytes
        self._max_bytes = max(settings.max_intake_bytes, settings.max_body_bytes)
        self._num_bytes = 0

    @contextmanager
    def reserve(self, headers: Headers) -> Iterator[int]:
        """Yields the bytes that the body will have: as declared, or as many as it may. Raises ``Overloaded``."""
        declared = headers.get("content-length", "")
        num_bytes = min(int(declared) if declared.isdigit() else self._max_body_bytes, self._max_body_bytes)
        if self._num_bytes + num_bytes > self._max_bytes:
            raise Overloaded("As many uploads are on their way as this gateway takes at once.")
        self._num_bytes += num_bytes
        try:
            yield num_bytes
        finally:
            self._num_bytes -= num_bytes
