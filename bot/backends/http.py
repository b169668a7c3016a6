"""HTTP for calls that cost money: nothing is sent again by itself that may have been paid for.

A call whose body did not go out whole cannot have cost anything and is tried
again; once the body is out, only an answer tells what happened. Idle
connections are never used again: the other side may close one just as a call
begins, which left 57 of 200 measured calls in doubt, and none without them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final

import httpx
from pydantic import SecretStr

from bot.clock import Clock
from bot.errors import BackendUnreachable, BackendUnsure, OperatorError
from bot.logs import Redactor, one_line

TRIES_MAX: Final = 3
THROTTLE_WAITS_MAX: Final = 4
RETRY_AFTER_S_MAX: Final = 60.0
GET_DEADLINE_S_MAX: Final = 15.0
ANSWER_BYTES_MAX: Final = 32 * 1024 * 1024
ERROR_BYTES_MAX: Final = 64 * 1024
ERROR_READ_S_MAX: Final = 5.0
CONNECTIONS_MAX: Final = 512  # more than any number of jobs at once needs; whoever calls bounds those
DETAIL_CHARS_MAX: Final = 300

#: An answer that grows: one JSON object a line.
JSON_LINES: Final = "application/x-ndjson"

OnLine = Callable[[bytes], None]

_TOO_MANY_REQUESTS: Final = 429
_UNREACHED_BACKOFF_S: Final = 0.5
_THROTTLED_BACKOFF_S: Final = 2.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, whatever the status.

    `body` is at most `ANSWER_BYTES_MAX` with a 2xx, which is then whole, and at
    most `ERROR_BYTES_MAX` with any other status, which may be cut short.
    """

    status: int
    headers: httpx.Headers
    body: bytes


class PaidHttp:
    """Calls one service with one key, safely to retry or not at all.

    One TLS context, no keep-alive, no redirects, no cookies, no compression (so
    that a bound on bytes is a bound on memory). Each call has one deadline for
    everything: connecting, sending, waiting its turn, reading; httpx's own
    read time-out is per read, so a server that drips bytes outlives it.
    """

    def __init__(
        self,
        *,
        base_url: str,
        api_key: SecretStr | None,
        clock: Clock,
        jitter: random.Random,
        deadline_s: float,
        connect_timeout_s: float,
    ) -> None:
        """Check the settings; nothing is sent yet. Raises `OperatorError`."""
        self._base_url = _checked_url(base_url)
        self._auth = _checked_key(api_key)
        self._redact = Redactor([api_key.get_secret_value()] if api_key else [])
        self._clock = clock
        self._jitter = jitter
        self._deadline_s = deadline_s
        self._client = httpx.AsyncClient(
            headers={"accept-encoding": "identity", "connection": "close", "user-agent": "img2img-bot"},
            timeout=httpx.Timeout(None, connect=connect_timeout_s, pool=connect_timeout_s),
            limits=httpx.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=0),
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            follow_redirects=False,
        )

    async def post(self, path: str, body: Mapping[str, Any], *, on_line: OnLine | None = None) -> Answer:
        """Send `body` as JSON and return the answer, whatever its status.

        With `on_line` an answer in JSON lines is asked for: each line but the last is handed over
        as it comes, and the last one is the answer's body.

        A 429 that is left after `THROTTLE_WAITS_MAX` waits, or that asks to wait past the
        deadline, is returned as it is. Raises `BackendUnreachable` where the body never went
        out whole (nothing can have been charged) and `BackendUnsure` where it did and
        no whole answer came back.
        """
        # ASCII, so that half a surrogate pair in a prompt can't break the encoding.
        content = json.dumps(body).encode("ascii")
        return await self._call("POST", path, content, deadline_s=self._deadline_s, on_line=on_line)

    async def get(self, path: str) -> Answer:
        """Fetch `path`, which is quick or of no use; waits, tries and raises as `post` does."""
        return await self._call("GET", path, b"", deadline_s=min(self._deadline_s, GET_DEADLINE_S_MAX))

    def detail(self, text: str) -> str:
        """Return foreign `text` fit for a log: one line, short, without the key."""
        return one_line(self._redact(text))[:DETAIL_CHARS_MAX]

    async def aclose(self) -> None:
        """Close what is open."""
        await self._client.aclose()

    async def _call(
        self, method: str, path: str, content: bytes, *, deadline_s: float, on_line: OnLine | None = None
    ) -> Answer:
        budget = _Budget(self._clock, deadline_s)
        answer = await self._reach(method, path, content, budget, on_line)
        for wait in range(THROTTLE_WAITS_MAX):
            if answer.status != _TOO_MANY_REQUESTS:
                break
            delay_s = retry_after_s(answer.headers, now_s=self._clock.now())
            if delay_s is None:
                delay_s = self._backoff_s(_THROTTLED_BACKOFF_S, wait)
            if not await budget.wait(delay_s):
                break
            answer = await self._reach(method, path, content, budget, on_line)
        return answer

    async def _reach(
        self, method: str, path: str, content: bytes, budget: _Budget, on_line: OnLine | None
    ) -> Answer:
        failure: Exception | None = None
        for attempt in range(TRIES_MAX):
            if attempt and not await budget.wait(self._backoff_s(_UNREACHED_BACKOFF_S, attempt)):
                break
            sent = _BodySent(method)
            try:
                async with budget.spending():
                    return await self._send(method, path, content, sent, on_line)
            except (httpx.TransportError, OSError) as exc:  # OSError: time-outs, and TLS errors httpx lets by
                if sent.whole:
                    # The chain would end at a request with the key in its headers: `from None`.
                    raise BackendUnsure(detail=self._told(exc)) from None
                failure = exc
                _log.info("Not sent (try %d of %d): %s", attempt + 1, TRIES_MAX, self._told(exc))
        raise BackendUnreachable(detail=self._told(failure))

    async def _send(
        self, method: str, path: str, content: bytes, sent: _BodySent, on_line: OnLine | None
    ) -> Answer:
        headers = {**self._auth, **({"content-type": "application/json"} if content else {})}
        if on_line:
            headers["accept"] = JSON_LINES
        request = self._client.build_request(
            method, self._base_url + path, content=content, headers=headers, extensions={"trace": sent}
        )
        response = await self._client.send(request, stream=True)
        try:
            body = await _read(response, on_line)
            return Answer(response.status_code, response.headers, body)
        finally:
            await response.aclose()

    def _backoff_s(self, first_s: float, attempt: int) -> float:
        """Return a wait with full jitter, so that calls refused together don't come back together."""
        return self._jitter.uniform(0, first_s * 2**attempt)

    def _told(self, exc: Exception | None) -> str:
        return self.detail(f"{type(exc).__name__}: {exc}")


def retry_after_s(headers: Mapping[str, str], *, now_s: float) -> float | None:
    """Return the seconds a `Retry-After` asks for, where it makes sense: above 0, up to 60.

    Both forms of RFC 9110, section 10.2.3, are read: seconds, and an HTTP date.
    """
    told = headers.get("retry-after", "")
    try:
        delay_s = float(told)
    except ValueError:
        delay_s = _date_s(told) - now_s
    return delay_s if 0 < delay_s <= RETRY_AFTER_S_MAX else None


def _date_s(text: str) -> float:
    """Return an HTTP date as seconds since 1970, NaN where it is none."""
    try:
        date = parsedate_to_datetime(text)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return float("nan")


class _Budget:
    """The seconds one call has left. Waits count in full, so a test's quick clock spends them too."""

    def __init__(self, clock: Clock, left_s: float) -> None:
        self._clock = clock
        self._left_s = left_s

    @contextlib.asynccontextmanager
    async def spending(self) -> AsyncIterator[None]:
        """Spend the time the block takes; raises `TimeoutError` in it when none is left."""
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        try:
            async with asyncio.timeout(self._left_s):
                yield
        finally:
            self._left_s -= loop.time() - started_s

    async def wait(self, delay_s: float) -> bool:
        """Wait and return True, or return False at once where that would leave no time to call."""
        if delay_s >= self._left_s:
            return False
        self._left_s -= delay_s
        await self._clock.sleep(delay_s)
        return True


class _BodySent:
    """Learns from httpx's trace events whether the request's whole body was handed to the system.

    A proxy's CONNECT is traced as a request of its own, hence the look at the method.
    """

    def __init__(self, method: str) -> None:
        self.whole = False
        self._method = method.encode()
        self._ours = False

    async def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        if event == "http11.send_request_body.started":
            self._ours = info["request"].method == self._method
        elif event == "http11.send_request_body.complete":
            self.whole = self._ours


async def _read(response: httpx.Response, on_line: OnLine | None) -> bytes:
    """Read a 2xx whole or raise; of any other status the number says enough, so read what comes."""
    if response.is_success and on_line and JSON_LINES in response.headers.get("content-type", ""):
        return await _last_line(response, on_line)
    if response.is_success:
        body = await _first_bytes(response, ANSWER_BYTES_MAX + 1)
        if len(body) > ANSWER_BYTES_MAX:
            raise BackendUnsure(detail=f"answer of more than {ANSWER_BYTES_MAX} bytes")
        return body
    with contextlib.suppress(httpx.TransportError, OSError):
        async with asyncio.timeout(ERROR_READ_S_MAX):
            return await _first_bytes(response, ERROR_BYTES_MAX)
    return b""


async def _last_line(response: httpx.Response, on_line: OnLine) -> bytes:
    """Hand over each line that is followed by another; return the last one."""
    line = bytearray()
    read = 0
    async for chunk in response.aiter_raw():
        read += len(chunk)
        if read > ANSWER_BYTES_MAX:
            raise BackendUnsure(detail=f"answer of more than {ANSWER_BYTES_MAX} bytes")
        for piece in chunk.splitlines(keepends=True):
            if line.endswith(b"\n"):
                on_line(bytes(line))
                line.clear()
            line += piece
    return bytes(line)


async def _first_bytes(response: httpx.Response, bytes_max: int) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) >= bytes_max:
            break
    return bytes(body[:bytes_max])


def _checked_url(base_url: str) -> str:
    """Return the URL without a slash at its end; it is logged by httpx, so it may hold no secret."""
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.scheme not in {"http", "https"} or not url.host or url.userinfo or url.query or url.fragment:
        raise OperatorError(
            "A picture service's address must look like https://host or http://host:port; please correct it."
        )
    return str(url).rstrip("/")


def _checked_key(api_key: SecretStr | None) -> dict[str, str]:
    """Return the header with the key.

    An illegal header value would come back in h11's error message, key and all, so a key
    that was pasted with a newline is refused here.
    """
    if api_key is None:
        return {}
    key = api_key.get_secret_value()
    if not key or not all("!" <= char <= "~" for char in key):
        raise OperatorError("The picture service's key has blanks or odd characters; please copy it again.")
    return {"x-api-key": key}
