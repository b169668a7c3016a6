"""Errors become sentences: never a repr, a class name or a traceback for whoever acted."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import aiohttp
import discord
import pytest
from discord import app_commands

from bot.errors import LimitReached, NotAllowed, NotEnoughCredits
from bot.gateway.interactions import BROKEN, GONE_CODES, explain, reply
from bot.gateway.modals import GuardedModal
from bot.gateway.sentences import NO_DISK, NOT_A_MEMBER, NOT_IN_A_SERVER, sentence_of
from db.database import CommitFailed
from tests.support.discord_wire import open_wire
from tests.support.live_bot import Brush, living

PICK = "isn't an option here; please pick one from the list."


def _http_error(code: int, status: int = 404) -> discord.HTTPException:
    response: Any = SimpleNamespace(status=status, reason="")
    return discord.HTTPException(response, {"code": code, "message": "x"})


class Interaction:
    """An interaction that keeps its answers, or fails to send them."""

    def __init__(self, *, answered: bool = False, error: Exception | None = None) -> None:
        self.answers: list[tuple[str, str, dict[str, Any]]] = []
        self._error = error
        self.response = SimpleNamespace(is_done=lambda: answered, send_message=self._sender("first"))
        self.followup = SimpleNamespace(send=self._sender("followup"))

    def _sender(self, kind: str) -> Any:
        async def send(text: str, **options: Any) -> None:
            if self._error is not None:
                raise self._error
            self.answers.append((kind, text, options))

        return send

    @property
    def said(self) -> str:
        """The one answer."""
        ((_, text, options),) = self.answers
        assert options["ephemeral"]
        return text


def _untransformed(value: object) -> app_commands.TransformerError:
    transformer: Any = SimpleNamespace(_error_display_name="int")
    return app_commands.TransformerError(value, discord.AppCommandOptionType.string, transformer)


def _somebody() -> discord.User:
    data: Any = {"id": "1", "username": "left", "discriminator": "0", "avatar": None}
    return discord.User(state=Mock(), data=data)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("dpmpp 9m", f"“dpmpp 9m” {PICK}"),
        ("_x_", f"“\\_x\\_” {PICK}"),
        (7, f"“7” {PICK}"),
        (0.5, f"“0.5” {PICK}"),
        ("**bold** [x](https://evil.example)", f"That {PICK}"),
        ("@everyone", f"That {PICK}"),
        ("two\nlines", f"That {PICK}"),
        ("x" * 51, f"That {PICK}"),
        ("", f"That {PICK}"),
        (None, f"That {PICK}"),
        (object(), f"That {PICK}"),
        (discord.Object(1), f"That {PICK}"),
        (_somebody(), NOT_A_MEMBER),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_a_value_that_is_no_option_is_repeated_only_if_harmless(value: object, sentence: str) -> None:
    """Plain words and numbers are quoted; an object, whatever it is, never shows how Python writes it."""
    assert sentence_of(_untransformed(value)) == sentence


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (LimitReached("Too much."), "Too much."),
        (NotEnoughCredits("Wait until", until=1_790_000_000.5), "Wait until <t:1790000000:R>."),
        (CommitFailed("disk I/O error"), NO_DISK),
        (app_commands.NoPrivateMessage(), NOT_IN_A_SERVER),
        (app_commands.MissingPermissions(["manage_guild"]), str(NotAllowed())),
        (app_commands.CheckFailure(), str(NotAllowed())),
        (RuntimeError("secret details"), None),
    ],
)
def test_each_error_has_its_sentence(error: Exception, sentence: str | None) -> None:
    """What can be explained is explained; an unexpected error has no sentence of its own."""
    assert sentence_of(error) == sentence


async def test_somebody_who_has_left_is_not_shown_as_python_writes_them(tmp_path: Path) -> None:
    """Discord still offers people who left; choosing one is answered with a sentence."""
    async with open_wire() as wire, living(tmp_path, wire, backends=[Brush()]):
        await wire.until(lambda: wire.online)
        left = {"id": "5", "username": "left", "discriminator": "0", "avatar": None}
        given = [{"name": "member", "type": 6, "value": "5"}, {"name": "amount", "type": 4, "value": 1}]
        give = {"name": "give", "type": 1, "options": given}
        data = {
            "id": "1",
            "name": "credits",
            "type": 1,
            "options": [give],
            "resolved": {"users": {"5": left}},
        }
        await wire.interact(2, data)
        await wire.until(lambda: bool(wire.messages))
        (answer,) = wire.messages.values()
        assert answer.private
        assert answer.body["content"] == NOT_A_MEMBER


async def test_an_unexpected_error_is_logged_and_answered_without_details(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The member reads that it broke on our side; the operator's log has the traceback."""
    interaction: Any = Interaction()
    command: Any = SimpleNamespace(name="img2img")
    await explain(interaction, app_commands.CommandInvokeError(command, RuntimeError("secret details")))
    assert interaction.said == BROKEN
    assert "Unhandled error in an interaction" in caplog.text
    assert "secret details" in caplog.text


@pytest.mark.parametrize("code", sorted(GONE_CODES))
async def test_an_expired_interaction_is_not_answered(code: int, caplog: pytest.LogCaptureFixture) -> None:
    """Where nobody can be answered, nothing is sent and nothing is logged as an error."""
    interaction: Any = Interaction()
    await explain(interaction, _http_error(code))
    assert interaction.answers == []
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_second_answer_is_a_follow_up() -> None:
    """An interaction that was answered before is followed up, in private and without pinging anybody."""
    interaction: Any = Interaction(answered=True)
    await explain(interaction, NotAllowed())
    ((kind, _, options),) = interaction.answers
    assert kind == "followup"
    assert options["ephemeral"] is True
    assert options["allowed_mentions"].to_dict() == {"parse": []}


@pytest.mark.parametrize(
    ("error", "is_logged"),
    [(_http_error(10062), False), (_http_error(0, 500), True), (aiohttp.ClientError("cut"), True)],
)
async def test_a_reply_that_can_not_be_sent_raises_nothing(
    error: Exception, is_logged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """An answer that fails is logged where that says something, and ends nothing else."""
    interaction: Any = Interaction(error=error)
    await reply(interaction, "words")
    assert ("could not be sent" in caplog.text) is is_logged


async def test_a_modals_error_is_explained() -> None:
    """Whoever submits a modal reads what went wrong; the library would answer nothing."""

    class Broken(GuardedModal, title="Broken"):
        async def submit(self, interaction: discord.Interaction[Any]) -> None:  # noqa: ARG002
            raise LimitReached("Too much.")

    interaction: Any = Interaction()
    await Broken().on_submit(interaction)
    assert interaction.said == "Too much."
    interaction = Interaction()
    await GuardedModal(title="Unfinished").on_submit(interaction)
    assert interaction.said == BROKEN
