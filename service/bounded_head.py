"""Requests whose head has no end: uvicorn's quick parser collects headers, a path or trailers for as long as they come.

It holds them before anybody could say who sends them, and joins the parts of one long value again with each part: a
few dozen megabytes would take the memory of a gateway, or its processor.
"""

import logging

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

log = logging.getLogger(__name__)

# Method, path and headers, or what comes beside the bytes of a body. Proxies allow 8 to 64 KiB.
MAX_HEAD_BYTES = 64 * 1024


class BoundedHeadProtocol(HttpToolsProtocol):
    """Counts what is read without a body's byte or the end of a request in it; one read is at most 256 KiB."""

    _num_head_bytes = 0
    _is_in_head = False
    _got_on = False

    def data_received(self, data: bytes) -> None:
        self._got_on = False
        super().data_received(data)
        self._num_head_bytes = 0 if self._got_on else self._num_head_bytes + len(data)
        if self._num_head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            log.info("a request whose head is larger than %d bytes is refused", MAX_HEAD_BYTES)
            if self._is_in_head:
                self.send_400_response(f"The head of this request is larger than {MAX_HEAD_BYTES} bytes.")
            else:  # it is being answered already
                self.transport.abort()

    def on_message_begin(self) -> None:
        self._is_in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._got_on = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._got_on = True
        super().on_message_complete()
