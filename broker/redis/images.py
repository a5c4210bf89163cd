"""Image files in Redis, within a number of bytes.

An index says what is there, whose it is and when it was used; the files lie in slots of their own. A file has a token,
so that one who removes what the index has dropped does not remove what somebody has put again.
"""

import asyncio
import secrets
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from broker.limits import BrokerLimits
from broker.redis.keys import Keys, is_key_part
from broker.redis.link import Link
from contracts.errors import ImageNotFound, Overloaded
from contracts.jobs import ImageRef, StoredImage

FILE_SLACK_S = 10.0
MS = 1000

encode_ref = msgspec.json.Encoder().encode
decode_ref = msgspec.json.Decoder(ImageRef).decode


class Images:
    """Least recently used files go first; those of open jobs are pinned and never go."""

    def __init__(self, link: Link, keys: Keys, limits: BrokerLimits, *, ttl_s: float) -> None:
        self._link = link
        self._keys = keys
        self._limits = limits
        self._image_ms = int(limits.image_ttl_s * MS)
        # The index decides; a file outlives its place there, and that of an open job is kept alive by sweeps.
        self._file_ms = int(max(limits.image_ttl_s + FILE_SLACK_S, ttl_s) * MS)

    async def put(self, image: StoredImage, owner: str) -> None:
        """Raises ``Overloaded``."""
        limits, token = self._limits, secrets.token_hex(8)
        bounds = (limits.max_image_bytes, limits.reserved_image_bytes)
        answer = await self._run(
            "image_reserve", image.ref.id, len(image.data), owner, token, encode_ref(image.ref), *bounds
        )
        status, token, dropped = answer
        await self._remove(dropped)
        if status == b"full":
            raise Overloaded("The image store is full of images that are being worked on. Try again shortly.")
        keys = self._keys.file(image.ref.id)
        if not await self._link.run("file_write", keys, token, self._file_ms):
            await self._link.run("file_write", keys, token, self._file_ms, image.media_type, image.data, alone=True)

    async def get(self, image_id: str, owner: str | None) -> StoredImage:
        """Raises ``ImageNotFound``."""
        token, ref = await self._use(image_id, owner)
        found = await self._link.run("file_read", self._keys.file(image_id), self._file_ms, alone=True)
        if found is None:
            await self._run("image_forget", image_id, token)
            raise _not_found(image_id)
        media_type, data = found
        return StoredImage(ref=ref, media_type=media_type.decode(), data=data)

    async def ref(self, image_id: str, owner: str | None) -> ImageRef:
        """Raises ``ImageNotFound``."""
        _, ref = await self._use(image_id, owner)
        return ref

    async def pin(self, image_ids: Sequence[str], response_id: str) -> int:
        """Keep these until ``unpin``. Returns their bytes. Raises ``ImageNotFound``."""
        if not image_ids:
            return 0
        total = await self._run("image_pin", response_id, *image_ids)
        if total is None:
            raise ImageNotFound("An image of this request is not stored any more. Upload it again.")
        return int(total)

    async def unpin(self, image_ids: Iterable[str], response_id: str) -> None:
        image_ids = tuple(dict.fromkeys(image_ids))
        if image_ids:
            await self._run("image_unpin", response_id, *image_ids)

    async def sweep(self, cursor: str) -> tuple[str, list[tuple[str, str]]]:
        """Remove what was not used for its time. Returns where to go on, and some pins: image and response."""
        dropped, cursor_now, pins = await self._run("image_sweep", cursor)
        await self._remove(dropped)
        pairs = [tuple(pin.decode().rsplit("/", 1)) for pin in pins]
        return cursor_now.decode(), [(image_id, response_id) for image_id, response_id in pairs]

    async def keep_file(self, image_id: str) -> None:
        """Of an image that is pinned."""
        await self._link.run("file_keep", self._keys.file(image_id), self._file_ms)

    async def _use(self, image_id: str, owner: str | None) -> tuple[bytes, ImageRef]:
        found = None
        if is_key_part(image_id):
            found = await self._run("image_use", image_id, *(() if owner is None else (owner,)))
        if found is None:
            raise _not_found(image_id)
        return found[0], decode_ref(found[1])

    async def _remove(self, dropped: Sequence[bytes]) -> None:
        pairs = zip(dropped[::2], dropped[1::2], strict=True)
        await asyncio.gather(*(self._link.run("file_drop", self._keys.file(i.decode()), token) for i, token in pairs))

    async def _run(self, name: str, *args: Any) -> Any:
        return await self._link.run(name, self._keys.images, self._file_ms, self._image_ms, *args)


def _not_found(image_id: str) -> ImageNotFound:
    return ImageNotFound(f"No image {image_id} is stored (any more). Upload it again.")
