"""The hosts of the internet, played by one server on loopback; and names that resolve as a test says."""

import asyncio
import datetime
import ipaddress
import ssl
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpcore
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from service.pinned_connections import connect

PUBLIC_ADDRESS = "93.184.216.34"
Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Remote:
    """Each request is answered by ``answers[path]``; ``requests`` are their heads as they came.

    ``resolve`` and ``connect`` are what the gateway is given: every name resolves to ``addresses`` or, in turn, to each
    of ``names[name]``; every connection comes here, and ``connected`` says where it was meant to go.
    """

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self.requests: list[str] = []
        self.answers: dict[str, bytes | Answer] = {}
        self.names: dict[str, list[Sequence[str]]] = defaultdict(lambda: [[PUBLIC_ADDRESS]])
        self.resolved: list[str] = []
        self.connected: list[tuple[str, int]] = []
        self.unreachable: set[str] = set()
        self._serving: set[asyncio.Task[None]] = set()

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        self.resolved.append(host)
        turns = self.names[host]
        addresses = turns.pop(0) if len(turns) > 1 else turns[0]
        if not addresses:
            raise OSError("no such name")
        return addresses

    async def connect(self, address: str, port: int, timeout_s: float | None) -> httpcore.AsyncNetworkStream:
        assert ipaddress.ip_address(address)  # never a name
        self.connected.append((address, port))
        if address in self.unreachable:
            raise httpcore.ConnectError("unreachable")
        return await connect("127.0.0.1", self.port, timeout_s)

    def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def aclose(self) -> None:
        """Whatever is still being sent is not."""
        tasks = list(self._serving)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._answer(reader, writer)
            writer.close()
            await writer.wait_closed()
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass  # the gateway had enough
        finally:
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.requests.append(head)
        answer = self.answers[head.split(" ")[1]]
        if isinstance(answer, bytes):
            writer.write(answer)
            await writer.drain()
        else:
            await answer(writer)


@asynccontextmanager
async def serving(tls: ssl.SSLContext | None = None) -> AsyncIterator[Remote]:
    remote = Remote()
    server = await asyncio.start_server(remote.serve, "127.0.0.1", 0, ssl=tls)
    remote.port = server.sockets[0].getsockname()[1]
    try:
        yield remote
    finally:
        await remote.aclose()
        server.close()
        await server.wait_closed()


def ok(body: bytes, *headers: str) -> bytes:
    """With its length, unless the headers say one."""
    if not any(line.startswith("Content-Length:") for line in headers):
        headers = (f"Content-Length: {len(body)}", *headers)
    return "\r\n".join(["HTTP/1.1 200 OK", *headers, "", ""]).encode() + body


def redirect(location: str, status: int = 302) -> bytes:
    return f"HTTP/1.1 {status} Elsewhere\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


def certificate(folder: Path, *names: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """For these host names, signed by itself: the server's side, and a client's that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "remote")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "remote.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(file)
    return server, ssl.create_default_context(cafile=str(file))
