"""An image service on the loopback that follows the contract, or breaks it on demand.

It uses plain streams because HTTP servers don't do most of what is needed here:
hang up inside a body, send byte by byte, send a wrong length.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from PIL import Image

API_KEY = "SG_0123456789abcdef"

Headers = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Received:
    """One request that arrived completely; header names in lower case."""

    method: str
    path: str
    headers: Headers
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        """The body, parsed."""
        parsed: dict[str, Any] = json.loads(self.body)
        return parsed

    @property
    def image(self) -> bytes:
        """The input picture's bytes as sent."""
        return base64.b64decode(self.json["image"], validate=True)


@dataclass(slots=True)
class Connection:
    """One connection whose request's head has been read and whose body has not."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    head: Received
    provider: Provider

    async def receive(self) -> Received:
        """Read the rest of the request and count it as received."""
        body = await self.reader.readexactly(int(self.head.headers.get("content-length", "0")))
        request = Received(self.head.method, self.head.path, self.head.headers, body)
        self.provider.received.append(request)
        return request

    async def send(self, data: bytes) -> None:
        """Send `data` unchanged."""
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """Hang up with a TCP reset, as a crashed process or a load balancer does."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Behaviour = Callable[[Connection], Awaitable[None]]


def jpeg(colour: str = "teal", size: tuple[int, int] = (64, 48)) -> bytes:
    """Return a real JPEG of one colour."""
    return _encoded("JPEG", colour, size)


def png() -> bytes:
    """Return a real PNG."""
    return _encoded("PNG", "teal", (64, 48))


def webp() -> bytes:
    """Return a real WebP."""
    return _encoded("WEBP", "teal", (64, 48))


def _encoded(kind: str, colour: str, size: tuple[int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, kind)
    return file.getvalue()


def message(status: int, body: bytes, headers: Headers) -> bytes:
    """Return an HTTP/1.1 answer's bytes; a length is added unless `headers` has one."""
    lines = {"Content-Length": str(len(body)), **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status} Whatever\r\n{head}\r\n".encode("latin-1") + body


def answer(status: int, body: bytes = b"", headers: Headers | None = None) -> Behaviour:
    """Read the request and answer."""

    async def behaviour(connection: Connection) -> None:
        await connection.receive()
        await connection.send(message(status, body, headers or {}))

    return behaviour


def picture(data: bytes | None = None, headers: Headers | None = None) -> Behaviour:
    """Answer 200 with a JPEG, or with `data`."""
    body = jpeg() if data is None else data
    return answer(200, body, {"Content-Type": "image/jpeg", **(headers or {})})


def error(status: int, text: str = "nope", headers: Headers | None = None) -> Behaviour:
    """Answer `{"error": text}`."""
    kind = {"Content-Type": "application/json"}
    return answer(status, json.dumps({"error": text}).encode(), {**kind, **(headers or {})})


async def reset_before_body(connection: Connection) -> None:
    """Hang up after the head, before the body."""
    connection.reset()


async def reset_in_body(connection: Connection) -> None:
    """Hang up after reading part of the body."""
    await connection.reader.readexactly(1000)
    connection.reset()


async def reset_after_body(connection: Connection) -> None:
    """Hang up after reading everything, without an answer."""
    await connection.receive()
    connection.reset()


async def close_after_body(connection: Connection) -> None:
    """Close the connection cleanly after reading everything, without an answer."""
    await connection.receive()


async def reset_in_answer(connection: Connection) -> None:
    """Hang up in the middle of the picture."""
    await connection.receive()
    whole = message(200, jpeg(), {"Content-Type": "image/jpeg"})
    await connection.send(whole[: len(whole) // 2])
    connection.reset()


async def silence(connection: Connection) -> None:
    """Read everything and never answer."""
    await connection.receive()
    await asyncio.Event().wait()


async def deafness(connection: Connection) -> None:
    """Never read the body, and never notice that the caller is gone."""
    del connection
    await asyncio.Event().wait()


async def drip(connection: Connection) -> None:
    """Send the picture one byte at a time: each read succeeds, but the answer is never complete."""
    await connection.receive()
    for byte in message(200, jpeg(size=(2048, 2048)), {"Content-Type": "image/jpeg"}):
        await connection.send(bytes([byte]))
        await asyncio.sleep(0.01)


async def flood(connection: Connection) -> None:
    """Answer 200 with an endless body."""
    await connection.receive()
    await connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n\r\n\xff\xd8\xff")
    while True:
        await connection.send(bytes(1 << 20))


async def broken_tunnel(connection: Connection) -> None:
    """Act as a proxy: accept the CONNECT, then hang up when the caller starts to send."""
    await connection.send(b"HTTP/1.1 200 Connected\r\n\r\n")
    await connection.reader.read(10)
    connection.reset()


async def nonsense(connection: Connection) -> None:
    """Answer with something that isn't HTTP and contains the caller's key."""
    request = await connection.receive()
    key = request.headers.get("x-api-key", "")
    await connection.send(f"what is {key}?\r\n\r\n".encode())


@dataclass(slots=True)
class Provider:
    """The service: uses the next of its behaviours for each connection, and repeats the last one."""

    behaviours: list[Behaviour] = field(default_factory=lambda: [picture()])
    received: list[Received] = field(default_factory=list)
    connections: int = 0
    url: str = ""
    _connections: set[asyncio.Task[None]] = field(default_factory=set)

    def will(self, *behaviours: Behaviour) -> Self:
        """Use these behaviours from now on."""
        self.behaviours = list(behaviours)
        return self

    @property
    def posts(self) -> int:
        """How many paid calls arrived completely."""
        return sum(request.method == "POST" for request in self.received)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        behaviour = self.behaviours.pop(0) if len(self.behaviours) > 1 else self.behaviours[0]
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            # `aclose` cancels it, which Python 3.11's streams would report as a failure.
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await behaviour(Connection(reader, writer, await _head(reader), self))
        finally:
            self._connections.discard(task)
            writer.close()

    async def aclose(self) -> None:
        """Close every connection."""
        for task in tuple(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)


async def _head(reader: asyncio.StreamReader) -> Received:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
    method, path, _ = first.split(" ")
    pairs = (line.split(": ", 1) for line in lines)
    return Received(method, path, {name.lower(): value for name, value in pairs}, b"")


@contextlib.asynccontextmanager
async def running_provider() -> AsyncIterator[Provider]:
    """Serve on a free loopback port until the block ends.

    The receive buffer is small, so that a large body stays with the client until it is read.
    """
    provider = Provider()
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.bind(("127.0.0.1", 0))
    server = await asyncio.start_server(provider._serve, sock=sock)
    provider.url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    try:
        yield provider
    finally:
        server.close()
        await provider.aclose()
        await server.wait_closed()


@contextlib.contextmanager
def refusing_url() -> Iterator[str]:
    """Reserve a loopback address where nobody listens, so that connections to it are refused."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"


class QuickClock:
    """A clock whose waits take no time and are recorded in `waits`, in seconds."""

    def __init__(self, now_s: float = 1_700_000_000.0) -> None:
        self.waits: list[float] = []
        self._now_s = now_s

    def now(self) -> float:
        """Return seconds since 1970, moved by the waits so far."""
        return self._now_s + sum(self.waits)

    async def sleep(self, delay_s: float) -> None:
        """Record the wait and let other tasks run."""
        self.waits.append(delay_s)
        await asyncio.sleep(0)
