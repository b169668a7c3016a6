"""What is sent back: statuses and headers of errors."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch", reason="needs the extra [gpu]")
pytest.importorskip("diffusers", reason="needs the extra [gpu]")
pytest.importorskip("starlette", reason="needs the extra [gpu]")

from bot import errors  # noqa: E402  after the skip
from bot.errors import BotError, NotAllowed, QueueFull  # noqa: E402  after the skip
from bot.gpu.responses import RETRY_AFTER_S, picture_body, refusal, status_of  # noqa: E402  after the skip


def test_every_error_has_a_status_of_the_contract() -> None:
    """Whatever goes wrong is answered with a status that the contract knows."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, BotError)]
    # Some take arguments; the status depends on the class alone.
    assert {status_of(kind.__new__(kind)) for kind in kinds} <= {400, 401, 404, 406, 429, 500, 503}


def test_full_queue_says_when_to_try_again() -> None:
    """A 429 has the wait in seconds, and the time of its end as the hosted API writes it."""
    response = refusal(QueueFull(), now_s=1_790_000_000.0)
    assert response.status_code == 429
    assert response.headers["retry-after"] == str(RETRY_AFTER_S)
    assert response.headers["x-rate-limit-reset-at-utc"] == "2026-09-21T14:13:25+00:00"


def test_missing_key_names_the_header_to_send() -> None:
    """A 401 says which header the key goes into, and the error in one sentence."""
    response = refusal(NotAllowed("The API key is missing."), now_s=0.0)
    assert response.headers["www-authenticate"] == "x-api-key"
    assert json.loads(bytes(response.body)) == {"error": "The API key is missing."}


def test_several_pictures_come_as_a_list() -> None:
    """One picture comes as `image`; several come as `images`, with the first as `image` too."""
    assert picture_body([b"a"]) == {"image": "YQ=="}
    assert picture_body([b"a", b"b"]) == {"image": "YQ==", "images": ["YQ==", "Yg=="]}
