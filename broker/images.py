"""Image files by content hash, within a number of bytes."""

from collections import OrderedDict
from collections.abc import Callable, Iterable

from broker.limits import BrokerLimits
from contracts.errors import ImageNotFound, Overloaded
from contracts.jobs import StoredImage


class ImageStore:
    """Least recently used files go first; files of open jobs are pinned and never go.

    An owner sees what it has put itself, even if another one put the same file; ``None`` sees all.
    """

    def __init__(self, limits: BrokerLimits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        # In order of last use, the latest at the end.
        self._images: OrderedDict[str, StoredImage] = OrderedDict()
        self._used_at: dict[str, float] = {}
        self._owners: dict[str, set[str]] = {}
        self._num_pins: dict[str, int] = {}
        self.num_bytes = 0

    def put(self, image: StoredImage, owner: str) -> None:
        """Raises ``Overloaded``: pinned files leave no place for it; nothing was evicted."""
        image_id = image.ref.id
        if image_id in self._images:
            self._owners[image_id].add(owner)
            self._touch(image_id)
            return
        size, most = len(image.data), self._limits.max_image_bytes
        evicted = self._in_its_way(size, most)
        if evicted is None and not any(owner in self._owners[pinned_id] for pinned_id in self._num_pins):
            evicted = self._in_its_way(size, most + self._limits.reserved_image_bytes)
        if evicted is None:
            raise Overloaded("The image store is full of images that are being worked on. Try again shortly.")
        for other_id in evicted:
            self._drop(other_id)
        self._images[image_id] = image
        self._owners[image_id] = {owner}
        self.num_bytes += size
        self._touch(image_id)

    def get(self, image_id: str, owner: str | None = None) -> StoredImage:
        """Raises ``ImageNotFound``."""
        self.forget_expired()
        if image_id not in self._images or not (owner is None or owner in self._owners[image_id]):
            raise ImageNotFound(f"No image {image_id} is stored (any more). Upload it again.")
        self._touch(image_id)
        return self._images[image_id]

    def num_bytes_of(self, image_ids: Iterable[str]) -> int:
        """All together. Raises ``ImageNotFound``."""
        return sum(len(self.get(image_id).data) for image_id in image_ids)

    def pin(self, image_ids: Iterable[str]) -> None:
        """Keep these, which are all there, until ``unpin``."""
        for image_id in image_ids:
            self._num_pins[image_id] = self._num_pins.get(image_id, 0) + 1

    def unpin(self, image_ids: Iterable[str]) -> None:
        for image_id in image_ids:
            self._touch(image_id)
            self._num_pins[image_id] -= 1
            if not self._num_pins[image_id]:
                del self._num_pins[image_id]

    def forget_expired(self) -> None:
        oldest_allowed = self._clock() - self._limits.image_ttl_s
        expired = []
        for image_id in self._images:
            if self._used_at[image_id] >= oldest_allowed:
                break  # the rest was used later
            if image_id not in self._num_pins:
                expired.append(image_id)
        for image_id in expired:
            self._drop(image_id)

    def _in_its_way(self, size: int, most: int) -> list[str] | None:
        """What has to go before so many bytes fit; ``None`` if pinned files leave no place for them."""
        found, free = [], most - self.num_bytes
        for other_id, other in self._images.items():
            if free >= size:
                break
            if other_id not in self._num_pins:
                found.append(other_id)
                free += len(other.data)
        return found if free >= size else None

    def _touch(self, image_id: str) -> None:
        self._images.move_to_end(image_id)
        self._used_at[image_id] = self._clock()

    def _drop(self, image_id: str) -> None:
        self.num_bytes -= len(self._images.pop(image_id).data)
        del self._used_at[image_id]
        del self._owners[image_id]
