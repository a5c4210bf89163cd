"""What an image's URL says, read once; everything later works on this reading and on nothing else."""

import re
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from contracts.errors import UrlNotAllowed
from service.host_names import ascii_host, is_allowed_host
from service.settings import ServiceSettings

MAX_URL_CHARS = 2048
DEFAULT_PORTS = {"https": 443, "http": 80}
# Letters outside ASCII are allowed and encoded below; these are read differently by different parsers.
UNSAFE = re.compile(r"[\x00-\x20\x7f\\]")
# What may stand in a path or a query as it is, escapes that are there already among them.
URL_CHARS = "%/:?@!$&'()*+,;=-._~[]"


@dataclass(frozen=True, slots=True)
class ImageUrl:
    """``host`` is in ASCII and lower case; ``target`` is path and query. There is no fragment and no password."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """As the Host header has it: the port only where it is not the scheme's own."""
        return self.host if self.port == DEFAULT_PORTS[self.scheme] else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"


def read_image_url(text: str, settings: ServiceSettings) -> ImageUrl:
    """Raises ``UrlNotAllowed``, in words that repeat nothing of the URL but its host."""
    if len(text) > MAX_URL_CHARS or UNSAFE.search(text):
        raise UrlNotAllowed(f"no URL of at most {MAX_URL_CHARS} characters without spaces and backslashes.")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise UrlNotAllowed("not a URL.") from None
    schemes = ("https", "http") if settings.image_url_http else ("https",)
    if parts.scheme not in schemes:
        raise UrlNotAllowed(f"only {' and '.join(schemes)} URLs are fetched.")
    if "@" in parts.netloc:
        raise UrlNotAllowed("a URL with a user name or password is not fetched.")
    host = ascii_host(parts.hostname or "")
    if not is_allowed_host(host, settings.image_url_hosts):
        raise UrlNotAllowed("the host is not one of those that the operator allows.")
    port = DEFAULT_PORTS[parts.scheme] if port is None else port
    if port not in settings.image_url_ports:
        raise UrlNotAllowed("the port is not one of those that the operator allows.")
    query = f"?{parts.query}" if parts.query else ""
    return ImageUrl(parts.scheme, host, port, quote((parts.path or "/") + query, safe=URL_CHARS))
