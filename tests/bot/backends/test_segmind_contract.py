"""What each status, header and body of the contract leads to."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from bot.backends.base import Generation
from bot.backends.http import DETAIL_CHARS_MAX
from bot.backends.segmind_contract import PATH, Contract, looks_complete, remaining_credits
from bot.backends.status_errors import OPTION_WORDS, error_of
from bot.errors import (
    BackendDown,
    BackendError,
    BackendFailed,
    BackendOutOfCredits,
    BackendRefused,
    BackendThrottled,
    BackendUnsure,
)
from bot.params import Img2ImgParams
from tests.support import provider as service
from tests.support.provider import API_KEY, Behaviour, Provider, QuickClock

PARAMS = Img2ImgParams(prompt="a fox", seed=2**32 - 2)


@pytest.fixture
async def contract(provider: Provider, clock: QuickClock) -> AsyncIterator[Contract]:
    """A client of the service."""
    contract = Contract(
        provider.url,
        SecretStr(API_KEY),
        clock=clock,
        jitter=random.Random(7),
        deadline_s=30.0,
        connect_timeout_s=5.0,
    )
    yield contract
    await contract.aclose()


async def made(contract: Contract, samples: int = 1) -> Generation:
    """Ask for `samples` pictures of a JPEG."""
    return await contract.generate(PARAMS.model_copy(update={"samples": samples}), service.jpeg())


STATUSES = [
    (301, BackendDown),
    (307, BackendDown),
    (400, BackendRefused),
    (401, BackendDown),
    (402, BackendRefused),
    (403, BackendDown),
    (404, BackendDown),
    (405, BackendDown),
    (406, BackendRefused),
    (409, BackendRefused),
    (410, BackendDown),
    (413, BackendRefused),
    (418, BackendRefused),
    (422, BackendRefused),
    (429, BackendThrottled),
    (500, BackendFailed),
    (501, BackendFailed),
    (502, BackendUnsure),
    (503, BackendUnsure),
    (504, BackendUnsure),
    (520, BackendFailed),
]


@pytest.mark.parametrize(("status", "kind"), STATUSES)
async def test_status_leads_to_its_outcome(
    contract: Contract, provider: Provider, status: int, kind: type[BackendError]
) -> None:
    """Each status ends the job as the contract says, after one call, or five if throttled."""
    provider.will(service.error(status, "nope"))
    with pytest.raises(BackendError) as caught:
        await made(contract)
    assert type(caught.value) is kind
    assert caught.value.detail == f"{status}: nope"
    assert "nope" not in str(caught.value)
    assert provider.posts == (5 if status == 429 else 1)


@pytest.mark.parametrize("status", [402, 406])
@pytest.mark.parametrize("text", ["Not enough credits", "insufficient CREDITS", "Your balance is 0"])
async def test_missing_credits_are_recognised(
    contract: Contract, provider: Provider, status: int, text: str
) -> None:
    """A 402 or 406 about credits means that the bot itself has run out of credits."""
    provider.will(service.error(status, text))
    with pytest.raises(BackendOutOfCredits, match="credits"):
        await made(contract)


@pytest.mark.parametrize(
    ("status", "text", "words"),
    [
        (400, "strength must be between 0 and 1", "refused the strength"),
        (406, "'foo' is not a valid sampler", "refused the sampler"),
        (422, "num_inference_steps: ensure this is at most 100", "refused the number of steps"),
        (400, "image generation: Strength out of range", "refused the strength"),
        (400, "negative_prompt too long", "refused the negative prompt"),
        (400, "can't read image", "refused the picture"),
        (400, "something else", "an option"),
        (400, "<html><img alt='image'>strength</html>", "an option"),
    ],
)
async def test_refusal_names_the_option(
    contract: Contract, provider: Provider, status: int, text: str, words: str
) -> None:
    """A member who chose an option that the service refuses sees which one it was."""
    provider.will(service.answer(status, text.encode()))
    with pytest.raises(BackendRefused, match=words):
        await made(contract)


async def test_refusal_in_another_form_names_the_option(contract: Contract, provider: Provider) -> None:
    """A validation error in the form of ASGI servers is understood as well."""
    body = {"detail": [{"loc": ["body", "guidance_scale"], "msg": "too much", "type": "less_than_equal"}]}
    provider.will(service.answer(422, json.dumps(body).encode()))
    with pytest.raises(BackendRefused, match="refused the guidance"):
        await made(contract)


async def test_too_large_picture_is_reported(contract: Contract, provider: Provider) -> None:
    """A 413 asks for a smaller picture."""
    provider.will(service.error(413))
    with pytest.raises(BackendRefused, match="smaller"):
        await made(contract)


async def test_foreign_text_stays_short_and_harmless(contract: Contract, provider: Provider) -> None:
    """The service's text is logged short, on one line and without the key, and never shown to a member."""
    provider.will(service.error(500, f"\nERROR root: \u202e{API_KEY} " + "x" * 10_000))
    with pytest.raises(BackendFailed) as caught:
        await made(contract)
    assert caught.value.detail.isprintable()
    assert len(caught.value.detail) <= DETAIL_CHARS_MAX
    assert API_KEY not in caught.value.detail
    assert "ERROR root" not in str(caught.value)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[" * 60_000, b"\xff\xfe", b'{"error": {"message": "strength"}}', b"null"]
)
async def test_any_error_body_is_survived(contract: Contract, provider: Provider, body: bytes) -> None:
    """A refusal is recognised whatever its explanation looks like."""
    provider.will(service.answer(400, body, {"Content-Type": "application/json"}))
    with pytest.raises(BackendRefused):
        await made(contract)


def as_json(data: bytes, prefix: str = "") -> bytes:
    """Wrap a picture as the contract's JSON form."""
    return json.dumps({"image": prefix + base64.b64encode(data).decode(), "seed": 1}).encode()


@pytest.mark.parametrize(
    ("content_type", "body", "data"),
    [
        ("image/jpeg", service.jpeg(), service.jpeg()),
        ("image/png", service.png(), service.png()),
        ("image/webp", service.webp(), service.webp()),
        ("application/octet-stream", service.jpeg(), service.jpeg()),
        ("image/jpeg", service.jpeg() + bytes(100), service.jpeg() + bytes(100)),
        ("application/json", as_json(service.jpeg()), service.jpeg()),
        ("application/json; charset=utf-8", as_json(service.png(), "data:image/png;base64,"), service.png()),
        ("text/plain", as_json(service.jpeg()), service.jpeg()),
        ("application/json", service.jpeg(), service.jpeg()),
    ],
)
async def test_picture_is_found_in_any_form(
    contract: Contract, provider: Provider, content_type: str, body: bytes, data: bytes
) -> None:
    """A complete picture is accepted as bytes or in JSON, whatever its declared type."""
    provider.will(service.answer(200, body, {"Content-Type": content_type}))
    generation = await made(contract)
    assert [picture.data for picture in generation.pictures] == [data]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("text/html", b"<html>busy</html>"),
        ("image/jpeg", b"<html>busy</html>"),
        ("application/json", b'{"error": "CUDA out of memory"}'),
        ("application/json", b'{"image": null}'),
        ("application/json", b'{"image": "%%%"}'),
        ("application/json", b'{"image": "abc"}'),
        ("application/json", b"["),
        ("application/json", as_json(service.jpeg()[:-40])),
        ("image/jpeg", b""),
        ("image/jpeg", service.jpeg()[: len(service.jpeg()) // 2]),
        ("image/png", service.png()[:-12]),
        ("image/webp", service.webp()[:-1]),
        ("image/gif", b"GIF89a"),
    ],
)
async def test_good_status_without_a_picture_is_unsure(
    contract: Contract, provider: Provider, content_type: str, body: bytes
) -> None:
    """A 200 without a complete picture may have been charged, so the outcome is unsure."""
    provider.will(service.answer(200, body, {"Content-Type": content_type}))
    with pytest.raises(BackendUnsure, match="isn't a complete picture") as caught:
        await made(contract)
    assert caught.value.detail == f"200: {content_type}, {len(body)} bytes"
    assert provider.posts == 1


@pytest.mark.parametrize("headers", [{"Content-Length": "1000000"}, {"Content-Encoding": "gzip"}])
async def test_lying_headers_are_survived(
    contract: Contract, provider: Provider, headers: dict[str, str]
) -> None:
    """A picture shorter than declared is unsure; one with a wrong content encoding is accepted as it is."""
    provider.will(service.picture(headers=headers))
    if "Content-Length" in headers:
        with pytest.raises(BackendUnsure):
            await made(contract)
    else:
        assert (await made(contract)).pictures


async def test_each_sample_is_a_call_of_its_own(contract: Contract, provider: Provider) -> None:
    """Three pictures are three calls for one each, in order, with consecutive seeds that wrap around."""
    generation = await made(contract, samples=3)
    seeds = [2**32 - 2, 2**32 - 1, 0]
    assert [(picture.index, picture.seed) for picture in generation.pictures] == list(enumerate(seeds))
    assert sorted(request.json["seed"] for request in provider.received) == sorted(seeds)
    assert {request.json["samples"] for request in provider.received} == {1}
    assert {request.path for request in provider.received} == {PATH}


@pytest.mark.parametrize("failing", [service.error(500), service.error(401), service.reset_after_body])
async def test_what_came_is_kept_when_others_fail(
    contract: Contract, provider: Provider, failing: Behaviour
) -> None:
    """A member who asked for three pictures gets those that arrived, and isn't charged for the others."""
    provider.will(service.picture(), failing, service.picture())
    generation = await made(contract, samples=3)
    assert len(generation.pictures) == 2
    assert provider.posts == 3


@pytest.mark.parametrize(
    ("behaviours", "kind"),
    [
        ([service.error(500), service.error(401)], BackendDown),
        ([service.error(400), service.error(406, "no credits")], BackendOutOfCredits),
        ([service.error(502), service.error(400)], BackendRefused),
        ([service.error(500), service.error(503)], BackendUnsure),
    ],
)
async def test_the_most_important_failure_is_raised(
    contract: Contract, provider: Provider, behaviours: list[Behaviour], kind: type[BackendError]
) -> None:
    """If every picture failed, the member sees the reason that something can be done about."""
    provider.will(*behaviours)
    with pytest.raises(BackendError) as caught:
        await made(contract, samples=2)
    assert type(caught.value) is kind


async def test_lowest_credits_of_several_count(contract: Contract, provider: Provider) -> None:
    """The operator's balance is the lowest that any of the calls reported, in whatever order they ended."""
    provider.will(
        *(service.picture(headers={"x-remaining-credits": left}) for left in ("3.5", "nan", "-0.25", "9"))
    )
    assert (await made(contract, samples=4)).remaining_credits == -0.25


@pytest.mark.parametrize(
    ("headers", "credits_left"),
    [
        ({}, None),
        ({"x-remaining-credits": "12.34"}, 12.34),
        ({"x-remaining-credits": "0"}, 0.0),
        ({"x-remaining-credits": "-3"}, -3.0),
        ({"x-remaining-credits": "1e-3"}, 0.001),
        ({"x-remaining-credits": "NaN"}, None),
        ({"x-remaining-credits": "inf"}, None),
        ({"x-remaining-credits": "-Infinity"}, None),
        ({"x-remaining-credits": "1e999"}, None),
        ({"x-remaining-credits": "plenty"}, None),
        ({"x-remaining-credits": ""}, None),
    ],
)
async def test_credits_are_read_with_care(
    contract: Contract, provider: Provider, headers: dict[str, str], credits_left: float | None
) -> None:
    """A balance that isn't a finite number is ignored; a negative one is not."""
    provider.will(service.picture(headers=headers))
    assert (await made(contract)).remaining_credits == credits_left


@given(st.text())
def test_no_credits_header_breaks_the_job(header: str) -> None:
    """Whatever the header says, the picture is delivered."""
    remaining_credits({"x-remaining-credits": header})


@given(st.binary())
def test_any_bytes_are_judged(data: bytes) -> None:
    """Bytes too short for a picture are never taken for one."""
    assert not looks_complete(data) or len(data) >= 4


@pytest.mark.parametrize("whole", [service.jpeg(), service.png(), service.webp()])
def test_every_truncation_is_noticed(whole: bytes) -> None:
    """A picture that was cut off, even by one byte, is not taken for a complete one."""
    assert looks_complete(whole)
    assert not any(looks_complete(whole[:length]) for length in range(len(whole)))


@given(st.integers(100, 999).filter(lambda status: not 200 <= status < 300), st.text())
def test_every_status_has_a_meaning(status: int, message: str) -> None:
    """Every status, listed or not, leads to a sentence for the member."""
    error = error_of(status, message=message, detail="x")
    assert "weren't charged" in str(error)


def test_every_attribute_has_a_word() -> None:
    """Every attribute that is sent has a name that members know."""
    assert set(OPTION_WORDS) == set(PARAMS.body("")) - {"base64"}
