"""No body larger than the limit is ever held: declared ones are refused at once, chunked ones while they come in."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from contracts.errors import BodyTooLarge


class BodyLimitMiddleware:
    """Raises ``BodyTooLarge`` out of ``receive``, that is, inside the handler that reads the body."""

    def __init__(self, app: ASGIApp, max_body_bytes: int) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "")
        num_bytes = int(declared) if declared.isdigit() else 0
        num_read = 0

        async def bounded_receive() -> Message:
            nonlocal num_read
            if max(num_bytes, num_read) > self._max_body_bytes:
                raise BodyTooLarge(f"The body is larger than {self._max_body_bytes} bytes.")
            message = await receive()
            num_read += len(message.get("body", b""))
            if num_read > self._max_body_bytes:
                raise BodyTooLarge(f"The body is larger than {self._max_body_bytes} bytes.")
            return message

        await self._app(scope, bounded_receive, send)
