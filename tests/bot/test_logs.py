"""What is logged, and what never may be."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator

import pytest

from bot.logs import HIDDEN, Redactor, one_line, setup_logging

KEY = "SG_0123456789abcdef"
#: The shapes of Discord's tokens; these were never anyone's.
OF_A_BOT = f"MTIzNDU2Nzg5MDEyMzQ1Njc4.GabcdE.{'abcdefghi' * 4}"
OF_AN_INTERACTION = "aW50ZXJhY3Rpb246MTIzNDU2Nzg5MDEyMzQ1Njc4OmFiY2RlZmdo"

Write = Callable[[], str]


@pytest.fixture
def written() -> Iterator[Write]:
    """Logging as the bot sets it up, into a string; restored after the test."""
    root, httpcore = logging.getLogger(), logging.getLogger("httpcore")
    handlers, levels = list(root.handlers), (root.level, httpcore.level)
    stream = io.StringIO()
    setup_logging(level="DEBUG", secrets=["hunter2-hunter2", "hunter2"], stream=stream)
    yield stream.getvalue
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    httpcore.setLevel(levels[1])


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        (f"key {KEY}.", f"key {HIDDEN}."),
        (f"[(b'x-api-key', b'{KEY}'), (b'a', b'b')]", f"[(b'x-api-key', b'{HIDDEN}'), (b'a', b'b')]"),
        ("{'x-api-key': 'another-kind', 'a': 1}", f"{{'x-api-key': '{HIDDEN}', 'a': 1}}"),
        ("X-API-Key: another-kind\r\n", f"X-API-Key: {HIDDEN}\r\n"),
        (f"Bad token {OF_A_BOT}", f"Bad token {HIDDEN}"),
        ("Authorization: Bot 0123456789abcdefghij", f"Authorization: Bot {HIDDEN}"),
        (
            "PATCH https://discord.com/api/v10/webhooks/123/tok-en_1/messages/@original with {}",
            f"PATCH https://discord.com/api/v10/webhooks/123/{HIDDEN}/messages/@original with {{}}",
        ),
        (
            "POST https://discord.com/api/v10/interactions/123/tok-en_1/callback?with_response=1",
            f"POST https://discord.com/api/v10/interactions/123/{HIDDEN}/callback?with_response=1",
        ),
        (f"bucket 123+{OF_AN_INTERACTION} is used up", f"bucket 123+{HIDDEN} is used up"),
        ('{"token": "anything", "type": 2}', f'{{"token": "{HIDDEN}", "type": 2}}'),
        ("{'token': 'anything'}", f"{{'token': '{HIDDEN}'}}"),
        ("hunter2-hunter2 hunter2", f"{HIDDEN} {HIDDEN}"),
    ],
)
def test_secrets_are_hidden(text: str, redacted: str) -> None:
    """Keys and tokens are taken out wherever they turn up, and the rest of the line stays."""
    assert Redactor(["hunter2", "hunter2-hunter2"])(text) == redacted


@pytest.mark.parametrize(
    "text",
    [
        "Job 123456789012345678 rendered in 7.43 s",
        'HTTP Request: POST https://api.segmind.com/v1/sd3-med-img2img "HTTP/1.1 200 OK"',
        "bot.backends.segmind: SG_ is how a key begins",
        "GET https://discord.com/api/v10/webhooks/123",
        "3 tokens: 'a', 'b'",
        "the x-api-key header",
    ],
)
def test_ordinary_lines_stay(text: str) -> None:
    """A line without a secret is unchanged."""
    assert Redactor([""])(text) == text


def test_secret_with_special_characters_is_hidden() -> None:
    """A registered secret is matched literally, not as a pattern."""
    assert Redactor(["a.b*c(d"])("a.b*c(d axbxc(d") == f"{HIDDEN} axbxc(d"


def test_secret_in_arguments_and_tracebacks_is_hidden(written: Write) -> None:
    """A secret is hidden in a record's arguments, in its traceback and in the chain of its causes."""
    log = logging.getLogger("any.library")
    log.debug("connecting with %r", {"key": KEY})
    failure = RuntimeError("hunter2")
    failure.__cause__ = ValueError(f"illegal header value {KEY}")
    log.error("failed with %s", OF_A_BOT, exc_info=failure)
    text = written()
    assert "ValueError" in text
    assert "RuntimeError" in text
    assert not any(secret in text for secret in (KEY, "hunter2", OF_A_BOT))


def test_nobody_can_forge_a_record(written: Write) -> None:
    """A prompt or an error with line breaks can't forge a record."""
    forged = "2026-01-01 00:00:00.000Z INFO bot.credits: granted"
    failure = ValueError(f"a\n{forged}\u2028{forged}")
    prompt = f"a fox\r\n{forged}\u2028{forged}\x1b[2J"
    logging.getLogger("bot").error("prompt: %s", prompt, exc_info=failure)
    lines = written().split("\n")
    assert not any(line.startswith(forged) for line in lines)
    assert "\\n" in lines[0]
    assert all(line.isprintable() for line in lines)


def test_record_starts_with_time_level_and_logger(written: Write) -> None:
    """A line starts with UTC time, level and logger."""
    record = logging.makeLogRecord(
        {"name": "bot", "levelname": "INFO", "levelno": 20, "msg": "hi", "created": 0.5, "msecs": 500.0}
    )
    logging.getLogger("bot").handle(record)
    assert written() == "1970-01-01 00:00:00.500Z INFO bot: hi\n"


def test_setting_up_again_writes_once(written: Write) -> None:
    """After a second set-up each record is still written once, to the new stream."""
    stream = io.StringIO()
    setup_logging(level=logging.INFO, secrets=[], stream=stream)
    logging.getLogger("bot").info("once")
    assert (stream.getvalue().count("once"), written()) == (1, "")


def test_response_headers_are_not_logged(written: Write) -> None:
    """Even at DEBUG, the HTTP library's dumps of complete headers are left out."""
    logging.getLogger("httpcore.http11").debug("receive_response_headers.complete")
    logging.getLogger("httpx").info("HTTP Request")
    assert "receive_response_headers" not in written()
    assert "HTTP Request" in written()


def test_one_line_keeps_what_can_be_printed() -> None:
    """Umlauts and emoji stay readable in the log; control characters are escaped."""
    assert one_line("Füchse 🦊") == "Füchse 🦊"
    assert one_line("a\tb\u202ec\0\ud800") == "a\\tb\\u202ec\\x00\\ud800"
