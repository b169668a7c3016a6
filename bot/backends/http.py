"""HTTP for calls that cost money: never retries a request that may already have been charged.

If the request body wasn't sent completely, the call can't have cost anything and
is retried. Once the body is sent, only a response shows what happened. Connections
are never reused: the server may close an idle one just as a call begins, which
left 57 of 200 measured calls in doubt; with new connections none were.
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

#: Enough for a dropped connection; a longer outage is left to the caller's circuit breaker.
TRIES_MAX: Final = 3
#: With `_THROTTLED_BACKOFF_S`, at most 2 + 4 + 8 + 16 = 30 s of waiting in all.
THROTTLE_WAITS_MAX: Final = 4
#: Rate limits are per minute, so a longer `Retry-After` is a mistake and is ignored.
RETRY_AFTER_S_MAX: Final = 60.0
#: A GET reads a balance or a health status, which nobody should wait long for.
GET_DEADLINE_S_MAX: Final = 15.0
#: Twice a 2048 x 2048 picture that doesn't compress, in base64.
ANSWER_BYTES_MAX: Final = 32 * 1024 * 1024
#: An error text is only searched for a few words and logged in one line.
ERROR_BYTES_MAX: Final = 64 * 1024
#: The status has already decided the outcome, so its explanation isn't waited for.
ERROR_READ_S_MAX: Final = 5.0
#: More than any number of concurrent jobs needs: callers limit those.
CONNECTIONS_MAX: Final = 512
#: Keeps a foreign text to one readable log line.
DETAIL_CHARS_MAX: Final = 300

#: A streamed answer: one JSON object per line.
JSON_LINES: Final = "application/x-ndjson"

OnLine = Callable[[bytes], None]

_TOO_MANY_REQUESTS: Final = 429
#: Doubles with each try: up to 1 s, then up to 2 s, as a failed connection is usually brief.
_UNREACHED_BACKOFF_S: Final = 0.5
#: Up to 2 s at first, then doubled: rate limits take longer to clear than connection errors.
_THROTTLED_BACKOFF_S: Final = 2.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response with any status.

    With a 2xx, `body` is complete and at most `ANSWER_BYTES_MAX`; with any other
    status it is at most `ERROR_BYTES_MAX` and may be cut short.
    """

    status: int
    headers: httpx.Headers
    body: bytes


class PaidHttp:
    """Calls one service with one key, retrying only what is safe to retry.

    One TLS context, no keep-alive, no redirects (the key goes to the configured
    host only), no cookies, and no compression, so that a limit on bytes is a limit
    on memory. Each call has one deadline for everything: connecting, sending,
    backing off, reading. httpx's own read timeout is per read, so a server that
    sends a byte now and then would never reach it.
    """

    def __init__(
        self,
        *,
        base_url: str,
        api_key: SecretStr | None,
        clock: Clock,
        deadline_s: float,
        connect_timeout_s: float,
        jitter: random.Random | None = None,
    ) -> None:
        """Validate the address and the key; nothing is sent yet. Raises `OperatorError`."""
        self._base_url = _validated_url(base_url)
        self._auth = _auth_headers(api_key)
        self._redact = Redactor([api_key.get_secret_value()] if api_key else [])
        self._clock = clock
        self._jitter = jitter or random.Random()  # noqa: S311 - spreads retries, guards nothing
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

        With `on_line`, the service is asked for JSON lines: each line but the last is passed
        to it on arrival, and the last one is the answer's body.

        A 429 is returned after `THROTTLE_WAITS_MAX` waits, or if waiting would exceed the deadline.

        Raises:
            BackendUnreachable: the body was never sent completely; nothing can have been charged.
            BackendUnsure: the body was sent, but no complete answer came back.
        """
        # ASCII, so that half a surrogate pair in a prompt can't break the encoding.
        content = json.dumps(body).encode("ascii")
        return await self._call("POST", path, content, deadline_s=self._deadline_s, on_line=on_line)

    async def get(self, path: str) -> Answer:
        """Fetch `path` within `GET_DEADLINE_S_MAX`; retries and raises as `post` does."""
        return await self._call("GET", path, b"", deadline_s=min(self._deadline_s, GET_DEADLINE_S_MAX))

    def detail(self, text: str) -> str:
        """Return foreign `text` made safe for a log: one short line without the key."""
        return one_line(self._redact(text))[:DETAIL_CHARS_MAX]

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def _call(
        self, method: str, path: str, content: bytes, *, deadline_s: float, on_line: OnLine | None = None
    ) -> Answer:
        budget = _Budget(self._clock, deadline_s)
        answer = await self._send_with_retries(method, path, content, budget, on_line)
        for wait in range(THROTTLE_WAITS_MAX):
            if answer.status != _TOO_MANY_REQUESTS:
                break
            delay_s = retry_after_s(answer.headers, now_s=self._clock.now())
            if delay_s is None:
                delay_s = self._backoff_s(_THROTTLED_BACKOFF_S, wait)
            if not await budget.wait(delay_s):
                break
            answer = await self._send_with_retries(method, path, content, budget, on_line)
        return answer

    async def _send_with_retries(
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
            except (
                httpx.TransportError,
                OSError,
            ) as exc:  # OSError: timeouts, TLS errors httpx passes on
                if sent.complete:
                    # `from None`: the chained exception holds a request with the key in its headers.
                    raise BackendUnsure(detail=self._describe(exc)) from None
                failure = exc
                _log.info("Request not sent (try %d of %d): %s", attempt + 1, TRIES_MAX, self._describe(exc))
        raise BackendUnreachable(detail=self._describe(failure))

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
        """Return a wait with full jitter, so that calls refused together don't retry together."""
        return self._jitter.uniform(0, first_s * 2**attempt)

    def _describe(self, exc: Exception | None) -> str:
        return self.detail(f"{type(exc).__name__}: {exc}")


def retry_after_s(headers: Mapping[str, str], *, now_s: float) -> float | None:
    """Return the seconds that `Retry-After` asks for, None unless above 0 and at most `RETRY_AFTER_S_MAX`.

    Accepts both forms of RFC 9110, section 10.2.3: seconds, and an HTTP date.
    """
    value = headers.get("retry-after", "")
    try:
        delay_s = float(value)
    except ValueError:
        delay_s = _date_s(value) - now_s
    return delay_s if 0 < delay_s <= RETRY_AFTER_S_MAX else None


def _date_s(text: str) -> float:
    """Return an HTTP date as seconds since 1970, NaN if it isn't one."""
    try:
        date = parsedate_to_datetime(text)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return float("nan")


class _Budget:
    """The seconds one call has left. Waits count in full, even with a test clock that doesn't wait."""

    def __init__(self, clock: Clock, left_s: float) -> None:
        self._clock = clock
        self._left_s = left_s

    @contextlib.asynccontextmanager
    async def spending(self) -> AsyncIterator[None]:
        """Subtract the time the block takes; raises `TimeoutError` in it when none is left."""
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        try:
            async with asyncio.timeout(self._left_s):
                yield
        finally:
            self._left_s -= loop.time() - started_s

    async def wait(self, delay_s: float) -> bool:
        """Wait and return True, or return False at once if that would leave no time for a call."""
        if delay_s >= self._left_s:
            return False
        self._left_s -= delay_s
        await self._clock.sleep(delay_s)
        return True


class _BodySent:
    """Records from httpx's trace events whether the complete request body was passed to the system.

    A proxy's CONNECT is traced as a request of its own, hence the check of the method.
    """

    def __init__(self, method: str) -> None:
        self.complete = False
        self._method = method.encode()
        self._is_ours = False

    async def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        if event == "http11.send_request_body.started":
            self._is_ours = info["request"].method == self._method
        elif event == "http11.send_request_body.complete":
            self.complete = self._is_ours


async def _read(response: httpx.Response, on_line: OnLine | None) -> bytes:
    """Read a complete 2xx body or raise; with any other status the body is optional, so read what comes."""
    if response.is_success and on_line and JSON_LINES in response.headers.get("content-type", ""):
        return await _last_line(response, on_line)
    if response.is_success:
        body = await _first_bytes(response, ANSWER_BYTES_MAX + 1)
        _check_size(len(body))
        return body
    with contextlib.suppress(httpx.TransportError, OSError):
        async with asyncio.timeout(ERROR_READ_S_MAX):
            return await _first_bytes(response, ERROR_BYTES_MAX)
    return b""


async def _last_line(response: httpx.Response, on_line: OnLine) -> bytes:
    """Pass each line that is followed by another to `on_line`; return the last one."""
    line = bytearray()
    read = 0
    async for chunk in response.aiter_raw():
        read += len(chunk)
        _check_size(read)
        for piece in chunk.splitlines(keepends=True):
            if line.endswith(b"\n"):
                on_line(bytes(line))
                line.clear()
            line += piece
    return bytes(line)


def _check_size(bytes_read: int) -> None:
    if bytes_read > ANSWER_BYTES_MAX:
        raise BackendUnsure(detail=f"answer of more than {ANSWER_BYTES_MAX} bytes")


async def _first_bytes(response: httpx.Response, bytes_max: int) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) >= bytes_max:
            break
    return bytes(body[:bytes_max])


def _validated_url(base_url: str) -> str:
    """Return the URL without a trailing slash; httpx logs it, so it must not contain a secret."""
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.scheme not in {"http", "https"} or not url.host or url.userinfo or url.query or url.fragment:
        raise OperatorError(
            "An image service's address must look like https://host or http://host:port; please correct it."
        )
    return str(url).rstrip("/")


def _auth_headers(api_key: SecretStr | None) -> dict[str, str]:
    """Return the header with the key.

    A key pasted with a newline is refused here: h11 would repeat an illegal header
    value, key and all, in its error message.
    """
    if api_key is None:
        return {}
    key = api_key.get_secret_value()
    if not key or not all("!" <= char <= "~" for char in key):
        raise OperatorError(
            "The image service's key has spaces or unusual characters in it; please copy it again."
        )
    return {"x-api-key": key}
