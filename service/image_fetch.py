"""Images by URL, where the operator allows it: little time, few bytes, few redirects, public addresses only."""

import asyncio
import ssl
from urllib.parse import urljoin

import httpcore
import httpx

from contracts.errors import ImageTooLarge, Overloaded, UrlNotAllowed, UrlNotFetched
from service.image_url import ImageUrl, read_image_url
from service.pinned_connections import Connect, PinnedBackend, Resolve, connect, resolve
from service.settings import ServiceSettings

MAX_REDIRECTS = 3
# Of one gateway at once; each holds up to image_max_bytes.
MAX_FETCHES = 16
REDIRECTS = (301, 302, 303, 307, 308)
# No cookie, no credential and nothing of the caller's request is sent along. What is not compressed cannot grow.
HEADERS = (("Accept", "image/*"), ("Accept-Encoding", "identity"), ("User-Agent", "ilvr"), ("Connection", "close"))

# Of one address; the next one of the name is tried then. All else is bounded by the time for the whole image.
EXTENSIONS = {"timeout": {"connect": 3.0}}


class ImageFetcher:
    """``httpcore`` rather than ``httpx``: it follows nothing, decodes nothing and reads no proxy settings by itself."""

    def __init__(
        self,
        settings: ServiceSettings,
        *,
        resolve: Resolve = resolve,
        connect: Connect = connect,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._settings = settings
        self._backend = PinnedBackend(resolve, connect)
        self._tls = tls
        self._num_fetching = 0

    async def fetch(self, url: str, param: str) -> bytes:
        """The file behind the URL, not looked at yet.

        Raises ``UrlNotAllowed``, ``UrlNotFetched``, ``ImageTooLarge``, ``Overloaded``.
        """
        if not self._settings.image_url_hosts:
            raise UrlNotAllowed(
                f"{param}: images by URL are off here; send the file, or POST /v1/images and its id.", param=param
            )
        if self._num_fetching >= MAX_FETCHES:
            raise Overloaded("As many images are being fetched as this gateway does at once. Try again shortly.")
        self._num_fetching += 1
        try:
            async with asyncio.timeout(self._settings.image_url_timeout_s):
                return await self._follow(url, param)
        except UrlNotAllowed as error:
            raise UrlNotAllowed(f"{param}: {error}", param=param) from None
        except UrlNotFetched as error:
            raise UrlNotFetched(f"{param}: {error}", param=param) from None
        except TimeoutError:
            limit_s = self._settings.image_url_timeout_s
            raise UrlNotFetched(f"{param}: the file did not come within {limit_s:g} s.", param=param) from None
        finally:
            self._num_fetching -= 1

    async def _follow(self, url: str, param: str) -> bytes:
        for _ in range(MAX_REDIRECTS + 1):
            there = read_image_url(url, self._settings)
            found = await self._get(there, param)
            if isinstance(found, bytes):
                return found
            url = _joined(there, found)
        raise UrlNotFetched(f"there are more than {MAX_REDIRECTS} redirects.")

    async def _get(self, url: ImageUrl, param: str) -> bytes | str:
        """The file, or where it is said to be. A connection of its own: it is looked at where it goes each time."""
        where = httpcore.URL(scheme=url.scheme, host=url.host, port=url.port, target=url.target)
        tls = self._context() if url.scheme == "https" else None
        try:
            async with (
                httpcore.AsyncConnectionPool(ssl_context=tls, network_backend=self._backend) as pool,
                pool.stream(
                    "GET", where, headers=[("Host", url.authority), *HEADERS], extensions=EXTENSIONS
                ) as response,
            ):
                headers = httpx.Headers(response.headers)
                if response.status in REDIRECTS and "location" in headers:
                    return headers["location"]
                if response.status != httpx.codes.OK:
                    raise UrlNotFetched(f"the host answered with status {response.status}.")
                if headers.get("content-encoding", "identity").lower() != "identity":
                    raise UrlNotFetched("the host sent the file compressed, although it was asked not to.")
                return await self._read(response, headers, param)
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, ssl.SSLError) as error:
            raise UrlNotFetched(f"the host could not be talked to ({type(error).__name__}).") from None

    async def _read(self, response: httpcore.Response, headers: httpx.Headers, param: str) -> bytes:
        limit = self._settings.image_max_bytes
        declared = headers.get("content-length", "")
        data = bytearray()
        if not (declared.isdigit() and int(declared) > limit):
            async for part in response.aiter_stream():
                data += part
                if len(data) > limit:
                    break
            else:
                return bytes(data)
        raise ImageTooLarge(f"{param}: the file has more than {limit} bytes.", param=param)

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:  # reading the certificates takes some 20 ms; most gateways never do
            self._tls = httpx.create_ssl_context()
        return self._tls


def _joined(url: ImageUrl, location: str) -> str:
    try:
        return urljoin(str(url), location)
    except ValueError:  # an address in brackets that is none
        raise UrlNotAllowed("it is redirected to something that is not a URL.") from None
