"""Images by URL: what is fetched, from where, and what ends it."""

import asyncio
import gzip
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import ImageTooLarge, Overloaded, UrlNotAllowed, UrlNotFetched
from service.image_fetch import MAX_FETCHES, MAX_REDIRECTS, ImageFetcher
from service.pinned_connections import connect, resolve
from service.settings import ServiceSettings
from tests.service.helpers import picture
from tests.service.remote import PUBLIC_ADDRESS, Remote, certificate, ok, redirect, serving

TIMEOUT_S = 20.0  # on a busy machine nothing else than what is tested may take so long
SHORT_S = 0.5
LIMIT = 50_000
PARAM = "images.0.url"
URL = "http://images.example.com/a.png"
PRIVATE = ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "fd00:ec2::254"]


@pytest.fixture
def settings() -> ServiceSettings:
    return ServiceSettings(
        image_url_hosts=("images.example.com", "*.cdn.example.org"),
        image_url_http=True,
        image_url_timeout_s=TIMEOUT_S,
        image_max_bytes=LIMIT,
    )


@pytest.fixture
async def remote() -> AsyncIterator[Remote]:
    async with serving() as remote:
        yield remote


@pytest.fixture
def fetcher(settings: ServiceSettings, remote: Remote) -> ImageFetcher:
    return ImageFetcher(settings, resolve=remote.resolve, connect=remote.connect)


@pytest.fixture
def hasty(settings: ServiceSettings, remote: Remote) -> ImageFetcher:
    settings = settings.model_copy(update={"image_url_timeout_s": SHORT_S})
    return ImageFetcher(settings, resolve=remote.resolve, connect=remote.connect)


async def test_a_file_comes_as_it_is(fetcher: ImageFetcher, remote: Remote) -> None:
    file = picture()
    remote.answers["/a.png?size=4&x=%20"] = ok(file, "Content-Type: text/html")
    assert await fetcher.fetch(f"{URL}?size=4&x=%20#part", PARAM) == file
    assert remote.connected == [(PUBLIC_ADDRESS, 80)]
    assert remote.resolved == ["images.example.com"]
    lines = remote.requests[0].rstrip().split("\r\n")
    assert lines[0] == "GET /a.png?size=4&x=%20 HTTP/1.1"
    assert sorted(lines[1:]) == [
        "Accept-Encoding: identity",
        "Accept: image/*",
        "Connection: close",
        "Host: images.example.com",
        "User-Agent: ilvr",
    ]


async def test_chunked_and_until_closed(fetcher: ImageFetcher, remote: Remote) -> None:
    remote.answers["/a.png"] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    assert await fetcher.fetch(URL, PARAM) == b"abcde"
    remote.answers["/a.png"] = b"HTTP/1.0 200 OK\r\n\r\nabcde"
    assert await fetcher.fetch(URL, PARAM) == b"abcde"


async def refused(fetcher: ImageFetcher, url: str = URL) -> UrlNotAllowed:
    with pytest.raises(UrlNotAllowed) as error:
        await fetcher.fetch(url, PARAM)
    assert error.value.param == PARAM
    assert str(error.value).startswith(f"{PARAM}: ")
    return error.value


async def failed(fetcher: ImageFetcher, url: str = URL) -> UrlNotFetched:
    with pytest.raises(UrlNotFetched) as error:
        await fetcher.fetch(url, PARAM)
    assert error.value.param == PARAM
    assert str(error.value).startswith(f"{PARAM}: ")
    return error.value


class TestOff:
    async def test_by_default_nothing_is_resolved(self, remote: Remote) -> None:
        fetcher = ImageFetcher(ServiceSettings(), resolve=remote.resolve, connect=remote.connect)
        assert "are off here" in str(await refused(fetcher, "https://images.example.com/a.png"))
        assert (remote.resolved, remote.connected) == ([], [])


class TestAddresses:
    @pytest.mark.parametrize("address", PRIVATE)
    async def test_a_name_with_a_private_address(self, address: str, fetcher: ImageFetcher, remote: Remote) -> None:
        remote.names["images.example.com"] = [[address]]
        error = await refused(fetcher)
        assert address not in str(error)  # what is inside stays inside
        assert remote.connected == []

    @pytest.mark.parametrize("turn", [0, 1, 2])
    async def test_one_private_address_among_public_ones(
        self, turn: int, fetcher: ImageFetcher, remote: Remote
    ) -> None:
        addresses = ["1.1.1.1", "2606:4700::1111"]
        addresses.insert(turn, "192.168.0.1")
        remote.names["images.example.com"] = [addresses]
        await refused(fetcher)
        assert remote.connected == []

    async def test_a_name_that_changes_its_answer_is_asked_once_and_pinned(
        self, fetcher: ImageFetcher, remote: Remote
    ) -> None:
        """The second answer would be this machine. Only a second connection would hear it, and does not go there."""
        remote.answers["/a.png"] = ok(b"abc")
        remote.names["images.example.com"] = [[PUBLIC_ADDRESS], ["127.0.0.1"]]
        assert await fetcher.fetch(URL, PARAM) == b"abc"
        assert remote.resolved == ["images.example.com"]
        assert remote.connected == [(PUBLIC_ADDRESS, 80)]
        await refused(fetcher)
        assert remote.connected == [(PUBLIC_ADDRESS, 80)]

    async def test_a_name_that_changes_its_answer_between_redirects(
        self, fetcher: ImageFetcher, remote: Remote
    ) -> None:
        remote.answers["/a.png"] = redirect("/b.png")
        remote.answers["/b.png"] = ok(b"abc")
        remote.names["images.example.com"] = [[PUBLIC_ADDRESS], ["127.0.0.1"]]
        await refused(fetcher)
        assert remote.connected == [(PUBLIC_ADDRESS, 80)]
        assert len(remote.requests) == 1

    async def test_the_next_address_is_tried_when_one_does_not_answer(
        self, fetcher: ImageFetcher, remote: Remote
    ) -> None:
        remote.answers["/a.png"] = ok(b"abc")
        remote.names["images.example.com"] = [["2606:4700::1111", "1.1.1.1"]]
        remote.unreachable = {"2606:4700::1111"}
        assert await fetcher.fetch(URL, PARAM) == b"abc"
        assert remote.connected == [("2606:4700::1111", 80), ("1.1.1.1", 80)]
        remote.unreachable.add("1.1.1.1")
        await failed(fetcher)

    @pytest.mark.parametrize("addresses", [[], ["images.example.com"], ["127.0.0.1 "], ["1.1.1.1", "x"]])
    async def test_a_name_without_a_proper_address(
        self, addresses: list[str], fetcher: ImageFetcher, remote: Remote
    ) -> None:
        remote.names["images.example.com"] = [addresses]
        await failed(fetcher)
        assert remote.connected == []

    async def test_what_the_system_is_asked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = []

        async def getaddrinfo(host: str, port: int, **kinds: int) -> list[tuple[Any, ...]]:
            asked.append((host, port))
            tcp = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
            return [(*tcp, ("1.1.1.1", port)), (*tcp, ("1.1.1.1", port)), (*tcp, ("::1", port, 0, 0))]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
        assert await resolve("images.example.com", 443) == ["1.1.1.1", "::1"]
        assert asked == [("images.example.com.", 443)]  # the dot: no search domain is added to it

    async def test_only_addresses_are_connected_to(self) -> None:
        with pytest.raises(ValueError, match="does not appear to be"):
            await connect("localhost", 9, 1.0)


class TestRedirects:
    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_to_an_allowed_host(self, status: int, fetcher: ImageFetcher, remote: Remote) -> None:
        remote.answers["/a.png"] = redirect("http://x.cdn.example.org/b.png?c", status)
        remote.answers["/b.png?c"] = ok(b"abc")
        assert await fetcher.fetch(URL, PARAM) == b"abc"
        assert remote.resolved == ["images.example.com", "x.cdn.example.org"]
        assert "Host: x.cdn.example.org\r\n" in remote.requests[1]

    @pytest.mark.parametrize(
        "location",
        [
            "http://evil.example/",
            "//evil.example/",
            "http://127.0.0.1/",
            "http://2130706433/",
            "http://[::1]/",
            "http://169.254.169.254/latest/meta-data/",
            "http://localhost/",
            "http://user@images.example.com/b.png",
            "http://images.example.com:6379/",
            "file:///etc/passwd",
            "gopher://images.example.com/",
            "data:image/png;base64,AAAA",
            "https://[",
        ],
    )
    async def test_to_anything_else(self, location: str, fetcher: ImageFetcher, remote: Remote) -> None:
        remote.answers["/a.png"] = redirect(location)
        await refused(fetcher)
        assert len(remote.connected) == 1

    async def test_to_an_allowed_name_with_a_private_address(self, fetcher: ImageFetcher, remote: Remote) -> None:
        remote.answers["/a.png"] = redirect("http://inside.cdn.example.org/")
        remote.names["inside.cdn.example.org"] = [["10.0.0.1"]]
        await refused(fetcher)
        assert len(remote.connected) == 1

    async def test_no_more_than_a_few(self, fetcher: ImageFetcher, remote: Remote) -> None:
        for number in range(MAX_REDIRECTS):
            remote.answers[f"/{number}"] = redirect(str(number + 1))
        remote.answers[f"/{MAX_REDIRECTS}"] = ok(b"abc")
        assert await fetcher.fetch("http://images.example.com/0", PARAM) == b"abc"
        remote.answers[f"/{MAX_REDIRECTS}"] = redirect("/0")
        assert "redirects" in str(await failed(fetcher, "http://images.example.com/0"))
        assert len(remote.requests) == 2 * (MAX_REDIRECTS + 1)

    async def test_from_https_to_http(self, settings: ServiceSettings, tmp_path: Path) -> None:
        server, client = certificate(tmp_path, "images.example.com")
        settings = settings.model_copy(update={"image_url_http": False})
        async with serving(server) as remote:
            remote.answers["/a.png"] = redirect("http://images.example.com/b.png")
            fetcher = ImageFetcher(settings, resolve=remote.resolve, connect=remote.connect, tls=client)
            await refused(fetcher, "https://images.example.com/a.png")
            assert len(remote.connected) == 1

    async def test_a_status_that_only_looks_like_one(self, fetcher: ImageFetcher, remote: Remote) -> None:
        remote.answers["/a.png"] = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n"
        assert "status 302" in str(await failed(fetcher))
        remote.answers["/a.png"] = redirect("/b.png", 300)
        assert "status 300" in str(await failed(fetcher))


class TestBounds:
    async def test_a_declared_length_over_the_limit_is_not_read(self, fetcher: ImageFetcher, remote: Remote) -> None:
        async def answer(writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (LIMIT + 1))
            await writer.drain()
            await asyncio.sleep(60)

        remote.answers["/a.png"] = answer
        async with asyncio.timeout(TIMEOUT_S / 2):
            with pytest.raises(ImageTooLarge, match=f"{PARAM}: the file has more than {LIMIT} bytes"):
                await fetcher.fetch(URL, PARAM)

    @pytest.mark.parametrize("head", [b"Transfer-Encoding: chunked", b"Connection: close"])
    async def test_a_body_without_end_is_cut_at_the_limit(
        self, head: bytes, fetcher: ImageFetcher, remote: Remote
    ) -> None:
        sent = 0

        async def answer(writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            writer.write(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n")
            part = b"x" * 10_000
            while sent < 100 * LIMIT:
                writer.write(b"2710\r\n" + part + b"\r\n" if b"chunked" in head else part)
                await writer.drain()
                sent += len(part)

        remote.answers["/a.png"] = answer
        with pytest.raises(ImageTooLarge):
            await fetcher.fetch(URL, PARAM)
        assert sent < 100 * LIMIT

    async def test_exactly_the_limit_is_allowed(self, fetcher: ImageFetcher, remote: Remote) -> None:
        remote.answers["/a.png"] = ok(b"x" * LIMIT)
        assert len(await fetcher.fetch(URL, PARAM)) == LIMIT

    @pytest.mark.parametrize("length", ["10", "-1", "3, 4", "x", "0x3"])
    async def test_a_wrong_length(self, length: str, fetcher: ImageFetcher, remote: Remote) -> None:
        remote.answers["/a.png"] = ok(b"abc", f"Content-Length: {length}")
        await failed(fetcher)

    async def test_a_length_that_is_too_small_ends_the_file(self, fetcher: ImageFetcher, remote: Remote) -> None:
        remote.answers["/a.png"] = ok(b"x" * 2 * LIMIT, "Content-Length: 3")
        assert await fetcher.fetch(URL, PARAM) == b"xxx"

    @pytest.mark.parametrize(
        "drip",
        [
            [b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", *[b"x"] * 1000],
            [b"HTTP/1.1 200 OK\r\n", *[b"X-A: b\r\n"] * 1000],
            [*[b"HTTP/1.1 103 Early Hints\r\n\r\n"] * 1000],
            [b"", *[b""] * 1000],
        ],
        ids=["body", "headers", "hints", "silence"],
    )
    async def test_a_slow_answer_ends_with_the_time(
        self, drip: list[bytes], hasty: ImageFetcher, remote: Remote
    ) -> None:
        async def answer(writer: asyncio.StreamWriter) -> None:
            for part in drip:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0.05)

        remote.answers["/a.png"] = answer
        began = time.monotonic()
        assert f"within {SHORT_S:g} s" in str(await failed(hasty))
        assert SHORT_S * 0.9 < time.monotonic() - began < TIMEOUT_S

    async def test_the_time_is_for_all_redirects_together(self, hasty: ImageFetcher, remote: Remote) -> None:
        async def answer(writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(SHORT_S * 0.6)
            writer.write(redirect("/a.png"))
            await writer.drain()

        remote.answers["/a.png"] = answer
        began = time.monotonic()
        assert "within" in str(await failed(hasty))
        assert time.monotonic() - began < TIMEOUT_S

    async def test_a_name_that_resolves_slowly(self, settings: ServiceSettings, remote: Remote) -> None:
        async def slowly(host: str, port: int) -> list[str]:
            await asyncio.sleep(60)
            return [PUBLIC_ADDRESS]

        settings = settings.model_copy(update={"image_url_timeout_s": SHORT_S})
        assert "within" in str(await failed(ImageFetcher(settings, resolve=slowly, connect=remote.connect)))

    @pytest.mark.parametrize("encoding", ["gzip", "br", "zstd", "identity, gzip", "GZIP", "x"])
    async def test_what_could_grow_is_refused(self, encoding: str, fetcher: ImageFetcher, remote: Remote) -> None:
        bomb = gzip.compress(b"\0" * 1_000_000)
        assert len(bomb) < LIMIT
        remote.answers["/a.png"] = ok(bomb, f"Content-Encoding: {encoding}")
        assert "compressed" in str(await failed(fetcher))
        remote.answers["/a.png"] = ok(bomb, "Content-Encoding: identity", f"Content-Encoding: {encoding}")
        await failed(fetcher)

    async def test_a_compressed_transfer_is_refused(self, fetcher: ImageFetcher, remote: Remote) -> None:
        remote.answers["/a.png"] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"
        await failed(fetcher)

    async def test_headers_without_end(self, fetcher: ImageFetcher, remote: Remote) -> None:
        sent = 0

        async def answer(writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            writer.write(b"HTTP/1.1 200 OK\r\n")
            while sent < 20_000_000:
                writer.write(b"X-A: " + b"b" * 10_000 + b"\r\n")
                await writer.drain()
                sent += 10_000

        remote.answers["/a.png"] = answer
        await failed(fetcher)
        assert sent < 20_000_000

    @pytest.mark.parametrize("answer", [b"", b"\r\n\r\n", b"SSH-2.0-OpenSSH_9\r\n", b"-ERR unknown command\r\n"])
    async def test_what_is_no_http(self, answer: bytes, fetcher: ImageFetcher, remote: Remote) -> None:
        remote.answers["/a.png"] = answer
        assert "SSH" not in str(await failed(fetcher))

    @pytest.mark.parametrize("status", [201, 204, 206, 304, 401, 404, 500, 999])
    async def test_another_status(self, status: int, fetcher: ImageFetcher, remote: Remote) -> None:
        remote.answers["/a.png"] = f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode()
        assert str(status) in str(await failed(fetcher))

    async def test_so_many_at_once(self, fetcher: ImageFetcher, remote: Remote) -> None:
        may_end = asyncio.Event()

        async def answer(writer: asyncio.StreamWriter) -> None:
            await may_end.wait()
            writer.write(ok(b"abc"))
            await writer.drain()

        remote.answers["/a.png"] = answer
        running = [asyncio.create_task(fetcher.fetch(URL, PARAM)) for _ in range(MAX_FETCHES)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await fetcher.fetch(URL, PARAM)
        running[0].cancel()
        await asyncio.wait([running[0]])
        running[0] = asyncio.create_task(fetcher.fetch(URL, PARAM))
        may_end.set()
        assert await asyncio.gather(*running) == [b"abc"] * MAX_FETCHES


class TestTls:
    async def test_the_certificate_is_checked_against_the_name(self, settings: ServiceSettings, tmp_path: Path) -> None:
        server, client = certificate(tmp_path, "images.example.com")
        async with serving(server) as remote:
            remote.answers["/a.png"] = ok(b"abc")
            fetcher = ImageFetcher(settings, resolve=remote.resolve, connect=remote.connect, tls=client)
            assert await fetcher.fetch("https://images.example.com/a.png", PARAM) == b"abc"
            assert remote.connected == [(PUBLIC_ADDRESS, 443)]
            await failed(fetcher, "https://x.cdn.example.org/a.png")  # the same server, under another name
            assert len(remote.requests) == 1

    async def test_a_certificate_that_nobody_vouches_for(self, settings: ServiceSettings, tmp_path: Path) -> None:
        server, _ = certificate(tmp_path, "images.example.com")
        async with serving(server) as remote:
            remote.answers["/a.png"] = ok(b"abc")
            fetcher = ImageFetcher(settings, resolve=remote.resolve, connect=remote.connect)
            await failed(fetcher, "https://images.example.com/a.png")
            assert remote.requests == []


async def test_proxies_of_the_environment_are_not_asked(
    fetcher: ImageFetcher, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    remote.answers["/a.png"] = ok(b"abc")
    assert await fetcher.fetch(URL, PARAM) == b"abc"
    assert remote.requests[0].startswith("GET /a.png ")
