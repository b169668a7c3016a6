"""What is sent again, what is not, and how long a call may take."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from bot.backends.http import (
    ANSWER_BYTES_MAX,
    ERROR_BYTES_MAX,
    GET_DEADLINE_S_MAX,
    RETRY_AFTER_S_MAX,
    THROTTLE_WAITS_MAX,
    TRIES_MAX,
    PaidHttp,
    retry_after_s,
)
from bot.errors import BackendFailed, BackendUnsure, OperatorError
from tests.support import provider as service
from tests.support.provider import API_KEY, Behaviour, Provider, QuickClock

#: More than the system buffers for a connection on either side (Linux: 4 MiB and the service's 4 KiB),
#: so that it can't have been sent completely when the service hangs up early.
LARGE = {"image": "a" * 12_000_000}


def http_to(url: str, clock: QuickClock, *, deadline_s: float = 30.0) -> PaidHttp:
    """Return a client of the service at `url` with a seeded jitter."""
    return PaidHttp(
        base_url=url,
        api_key=SecretStr(API_KEY),
        clock=clock,
        jitter=random.Random(7),
        deadline_s=deadline_s,
        connect_timeout_s=5.0,
    )


@pytest.fixture
async def http(provider: Provider, clock: QuickClock) -> AsyncIterator[PaidHttp]:
    """A client of the service with plenty of time."""
    http = http_to(provider.url, clock)
    yield http
    await http.aclose()


@pytest.fixture
async def hasty(provider: Provider, clock: QuickClock) -> AsyncIterator[PaidHttp]:
    """A client of the service that gives up after 0.3 s."""
    http = http_to(provider.url, clock, deadline_s=0.3)
    yield http
    await http.aclose()


async def test_post_arrives_with_key_and_json(http: PaidHttp, provider: Provider) -> None:
    """A call reaches the service as JSON with the key in its header, on a connection used once."""
    await http.post("/x", {"prompt": "é \ud800"})
    (request,) = provider.received
    assert (request.method, request.path, request.json) == ("POST", "/x", {"prompt": "é \ud800"})
    assert request.headers["x-api-key"] == API_KEY
    assert request.headers["content-type"] == "application/json"
    assert request.headers["connection"] == "close"


async def test_each_call_has_a_connection_of_its_own(http: PaidHttp, provider: Provider) -> None:
    """No call is left unsure because the service closed an idle connection, as none is kept."""
    provider.will(service.answer(200, b"ok", {"Connection": "keep-alive"}))
    for _ in range(3):
        await http.post("/x", {})
    assert (provider.posts, provider.connections) == (3, 3)


async def test_cookies_are_not_kept(http: PaidHttp, provider: Provider) -> None:
    """Calls can't be linked: a cookie that was set is not sent back."""
    provider.will(service.answer(200, b"ok", {"Set-Cookie": "a=b; Path=/"}))
    await http.post("/x", {})
    await http.post("/x", {})
    assert "cookie" not in provider.received[1].headers


@pytest.mark.parametrize("behaviour", [service.reset_before_body, service.reset_in_body])
async def test_unsent_body_is_sent_again(
    http: PaidHttp, provider: Provider, clock: QuickClock, behaviour: Behaviour
) -> None:
    """After a hang-up before the body was sent, it is sent again: it can't have been charged."""
    provider.will(behaviour, behaviour, service.answer(200, b"ok"))
    answer = await http.post("/x", LARGE)
    assert (answer.body, provider.posts, provider.connections) == (b"ok", 1, 3)
    assert len(clock.waits) == 2


async def test_unsent_body_is_given_up_after_three_tries(http: PaidHttp, provider: Provider) -> None:
    """A service that hangs up on every body costs three connections and no paid call."""
    provider.will(service.reset_in_body)
    with pytest.raises(BackendFailed, match="can't be reached"):
        await http.post("/x", LARGE)
    assert (provider.posts, provider.connections) == (0, TRIES_MAX)


async def test_nobody_listening_is_unreachable(clock: QuickClock) -> None:
    """A service that isn't there is tried three times, then reported as unreachable."""
    with service.refusing_url() as url:
        http = http_to(url, clock)
        with pytest.raises(BackendFailed, match="can't be reached") as caught:
            await http.post("/x", {})
        await http.aclose()
    assert "ConnectError" in caught.value.detail
    assert len(clock.waits) == TRIES_MAX - 1
    assert all(0 <= wait <= 2**attempt for attempt, wait in enumerate(clock.waits))


async def test_body_that_is_never_read_is_unreachable_at_the_deadline(
    hasty: PaidHttp, provider: Provider
) -> None:
    """A service that never reads the body is given up at the deadline, and can't have charged."""
    provider.will(service.deafness)
    with pytest.raises(BackendFailed, match="can't be reached"):
        await hasty.post("/x", LARGE)
    assert (provider.posts, provider.connections) == (0, 1)


async def test_proxy_that_hangs_up_is_unreachable(
    provider: Provider, clock: QuickClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was sent to a proxy only doesn't count as a call that may be charged."""
    monkeypatch.setenv("HTTPS_PROXY", provider.url)
    provider.will(service.broken_tunnel)
    http = http_to("https://service.invalid", clock)
    with pytest.raises(BackendFailed, match="can't be reached"):
        await http.post("/x", {})
    await http.aclose()
    assert provider.connections == TRIES_MAX


@pytest.mark.parametrize(
    "behaviour",
    [service.reset_after_body, service.close_after_body, service.reset_in_answer, service.nonsense],
)
async def test_sent_body_without_answer_is_unsure(
    http: PaidHttp, provider: Provider, behaviour: Behaviour
) -> None:
    """A call that breaks off after the body was sent may be charged and is not repeated here."""
    provider.will(behaviour)
    with pytest.raises(BackendUnsure):
        await http.post("/x", {"prompt": "a fox"})
    assert provider.posts == provider.connections == 1


@pytest.mark.parametrize("behaviour", [service.silence, service.drip])
async def test_deadline_holds_for_the_whole_answer(
    hasty: PaidHttp, provider: Provider, behaviour: Behaviour
) -> None:
    """A service that never answers, or answers byte by byte, is given up at the deadline, once."""
    provider.will(behaviour)
    with pytest.raises(BackendUnsure) as caught:
        await hasty.post("/x", {})
    assert "TimeoutError" in caught.value.detail
    assert provider.posts == 1


async def test_endless_answer_is_cut_off(http: PaidHttp, provider: Provider) -> None:
    """An endless answer is dropped at the size limit instead of filling the memory."""
    provider.will(service.flood)
    with pytest.raises(BackendUnsure) as caught:
        await http.post("/x", {})
    assert str(ANSWER_BYTES_MAX) in caught.value.detail


async def test_largest_answer_is_accepted(http: PaidHttp, provider: Provider) -> None:
    """An answer of exactly the size limit is accepted."""
    provider.will(service.answer(200, bytes(ANSWER_BYTES_MAX)))
    assert len((await http.post("/x", {})).body) == ANSWER_BYTES_MAX


async def test_error_status_counts_even_if_its_text_breaks_off(http: PaidHttp, provider: Provider) -> None:
    """A refusal whose explanation is cut off is still a refusal, not an unsure outcome."""
    provider.will(service.answer(401, b'{"error"', {"Content-Length": "500"}))
    assert (await http.post("/x", {})).status == 401


async def test_error_text_is_bounded(http: PaidHttp, provider: Provider) -> None:
    """Of a refusal with a megabyte of explanation, only the beginning is kept."""
    provider.will(service.answer(400, b"x" * 1_000_000))
    assert (await http.post("/x", {})).body == b"x" * ERROR_BYTES_MAX


async def test_redirect_is_not_followed(http: PaidHttp, provider: Provider) -> None:
    """The key is sent to the configured address only, wherever that redirects."""
    provider.will(service.answer(307, b"", {"Location": f"{provider.url}/elsewhere"}))
    assert (await http.post("/x", {})).status == 307
    assert [request.path for request in provider.received] == ["/x"]


async def test_throttled_call_waits_as_asked(http: PaidHttp, provider: Provider, clock: QuickClock) -> None:
    """After a 429 with Retry-After, the call waits exactly that long, then gets its answer."""
    provider.will(service.error(429, headers={"Retry-After": "7"}), service.answer(200, b"ok"))
    assert (await http.post("/x", {})).body == b"ok"
    assert clock.waits == [7.0]


@pytest.mark.parametrize(
    "header", ["-1", "0", "1e9", "61", "nan", "inf", "soon", "", "Thu, 01 Jan 1970 00:00:00 GMT"]
)
async def test_absurd_retry_after_is_not_believed(
    http: PaidHttp, provider: Provider, clock: QuickClock, header: str
) -> None:
    """An unreasonable Retry-After is replaced by a short wait of our own."""
    provider.will(service.error(429, headers={"Retry-After": header}), service.answer(200, b"ok"))
    assert (await http.post("/x", {})).body == b"ok"
    assert len(clock.waits) == 1
    assert 0 <= clock.waits[0] <= 2


async def test_endless_throttling_is_returned(http: PaidHttp, provider: Provider, clock: QuickClock) -> None:
    """A service that keeps throttling is called five times, with four waits whose upper limits grow."""
    provider.will(service.error(429))
    assert (await http.post("/x", {})).status == 429
    assert provider.posts == THROTTLE_WAITS_MAX + 1
    assert all(0 <= wait <= 2 * 2**attempt for attempt, wait in enumerate(clock.waits))


async def test_waits_never_pass_the_deadline(http: PaidHttp, provider: Provider, clock: QuickClock) -> None:
    """A wait that would exceed the deadline is not started."""
    provider.will(service.error(429, headers={"Retry-After": "20"}))
    assert (await http.post("/x", {})).status == 429
    assert clock.waits == [20.0]  # of 30 s; a second one doesn't fit


async def test_a_get_has_a_short_deadline(http: PaidHttp, provider: Provider, clock: QuickClock) -> None:
    """A request for the balance gives up early instead of keeping the operator waiting."""
    provider.will(service.error(429, headers={"Retry-After": str(GET_DEADLINE_S_MAX)}))
    assert (await http.get("/x")).status == 429
    assert clock.waits == []


async def test_cancelling_hangs_up(http: PaidHttp, provider: Provider) -> None:
    """A cancelled call closes its connection at once."""
    came, left = asyncio.Event(), asyncio.Event()

    async def notice(connection: service.Connection) -> None:
        await connection.receive()
        came.set()
        await connection.reader.read()
        left.set()

    provider.will(notice)
    call = asyncio.create_task(http.post("/x", {}))
    async with asyncio.timeout(10):
        await came.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await left.wait()


def test_retry_after_date_is_read() -> None:
    """A date half a minute ahead means half a minute."""
    now_s = 1_700_000_000.0
    assert retry_after_s({"retry-after": formatdate(now_s + 30, usegmt=True)}, now_s=now_s) == 30.0
    assert retry_after_s({"retry-after": "Tue, 14 Nov 2023 22:13:50 -0000"}, now_s=now_s) == 30.0


@given(st.text() | st.floats().map(str) | st.integers().map(str) | st.datetimes().map(str))
def test_no_retry_after_breaks_the_call(header: str) -> None:
    """Whatever Retry-After contains, the wait is at most a minute."""
    delay_s = retry_after_s({"retry-after": header}, now_s=1_700_000_000.0)
    assert delay_s is None or 0 < delay_s <= RETRY_AFTER_S_MAX
    assert delay_s is None or math.isfinite(delay_s)


@pytest.mark.parametrize("key", ["", " ", f"{API_KEY}\n", f" {API_KEY}", "SG_schlüssel", "a\0b"])
def test_key_that_cannot_be_one_is_refused_unseen(key: str, clock: QuickClock) -> None:
    """A key pasted with a newline prevents the start with a sentence that doesn't repeat it."""
    with pytest.raises(OperatorError, match="copy it again") as caught:
        PaidHttp(**{**_settings(clock), "api_key": SecretStr(key)})
    assert key.strip() == "" or key.strip() not in repr(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.segmind.com",
        "ftp://host",
        "https://",
        "https://me:pw@host",
        "https://host/?key=1",
        "http://host:port",
        "\n",
    ],
)
def test_address_that_cannot_be_one_is_refused(url: str, clock: QuickClock) -> None:
    """An address without a host, or containing a secret that would be logged, prevents the start."""
    with pytest.raises(OperatorError, match="https://host"):
        PaidHttp(**{**_settings(clock), "base_url": url})


def test_service_without_key_gets_none(clock: QuickClock) -> None:
    """A self-hosted service may work without a key."""
    assert PaidHttp(**{**_settings(clock), "api_key": None})._auth == {}


def _settings(clock: QuickClock) -> dict[str, Any]:
    return {
        "base_url": "http://127.0.0.1:9/",
        "api_key": SecretStr(API_KEY),
        "clock": clock,
        "jitter": random.Random(7),
        "deadline_s": 1.0,
        "connect_timeout_s": 1.0,
    }
