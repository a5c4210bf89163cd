"""No body larger than the limit is ever held: declared ones are refused at once, chunked ones while they come in.

And none is waited for longer than its time: the room that is kept for what may still come is not there for others.
"""

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from contracts.errors import BodyTooLarge, BodyTooSlow

# Nobody reads a body of theirs: ``receive`` only tells when the client is gone.
WITHOUT_BODY = frozenset({"GET", "HEAD"})


class BodyLimitMiddleware:
    """Raises ``BodyTooLarge`` and ``BodyTooSlow`` out of ``receive``, that is, inside the handler that reads the body.

    timeout_s: from the first read to the body's last byte. One between two reads would be kept by a byte a minute.
    """

    def __init__(self, app: ASGIApp, max_body_bytes: int, timeout_s: float) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "")
        num_bytes = int(declared) if declared.isdigit() else 0
        num_read = 0
        has_more = scope["method"] not in WITHOUT_BODY
        due_at: float | None = None

        async def bounded_receive() -> Message:
            nonlocal num_read, has_more, due_at
            if max(num_bytes, num_read) > self._max_body_bytes:
                raise BodyTooLarge(f"The body is larger than {self._max_body_bytes} bytes.")
            if not has_more:
                return await receive()
            if due_at is None:
                due_at = asyncio.get_running_loop().time() + self._timeout_s
            try:
                async with asyncio.timeout_at(due_at):
                    message = await receive()
            except TimeoutError:
                raise BodyTooSlow(
                    f"The body was not all there after {self._timeout_s:g} s; send less, or over a quicker line."
                ) from None
            has_more = message.get("more_body", False)
            num_read += len(message.get("body", b""))
            if num_read > self._max_body_bytes:
                raise BodyTooLarge(f"The body is larger than {self._max_body_bytes} bytes.")
            return message

        await self._app(scope, bounded_receive, send)
