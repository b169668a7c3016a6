"""How cards reach Discord: the library's real requests to the stand-in on the loopback."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import discord
import pytest
from discord import ui

from bot.jobs.records import JobView
from cogs.card_messages import TOKEN_MARGIN_S, JobMessages, NowhereToPost, filenames_of
from tests.support.discord_wire import ALICE_ID, CHANNEL_ID, GUILD_ID, Fault, Message, Wire, open_wire
from tests.support.hostile_texts import HOSTILE_TEXTS, acting_in
from tests.support.job_views import a_view
from tests.support.live_bot import Brush, living

GONE = {"message": "Unknown Message", "code": 10008}
FORBIDDEN = {"message": "Missing Access", "code": 50001}


class Stage:
    """A bot on the stand-in, its job messages, and a job that was answered with a card."""

    def __init__(self, wire: Wire, messages: JobMessages, now: float) -> None:
        self.wire = wire
        self.messages = messages
        card = Message(wire.snowflake(), CHANNEL_ID, {}, {})
        wire.messages[card.id] = card
        wire.answered["token"] = card.id
        self.card = card
        self.now = now
        self.view = self.job()

    def job(self, **changes: Any) -> JobView:
        """Return the job, changed."""
        known = {
            "guild_id": GUILD_ID,
            "channel_id": CHANNEL_ID,
            "user_id": ALICE_ID,
            "message_id": self.card.id,
            "token": "token",
            "token_expires_at": self.now + 900,
        }
        return a_view(**{**known, **changes})

    @property
    def sent(self) -> list[str]:
        """The requests that were made to messages, in order."""
        edits = [f"{r.method} {r.path}" for r in self.wire.requests if "messages" in r.path]
        return [edit.replace(str(self.card.id), "CARD").replace(str(CHANNEL_ID), "CHANNEL") for edit in edits]


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """A stage with the bot online."""
    async with _open_stage(tmp_path) as opened:
        yield opened


@asynccontextmanager
async def _open_stage(folder: Path) -> AsyncIterator[Stage]:
    async with open_wire() as wire, living(folder, wire, backends=[Brush()]) as life:
        await wire.until(lambda: wire.online)
        client = life.supervisor._client
        assert client is not None
        yield Stage(wire, JobMessages(client, life.app.clock), life.app.clock.now())


def _layout(*filenames: str) -> ui.LayoutView:
    layout = ui.LayoutView(timeout=None)
    layout.add_item(ui.TextDisplay("words"))
    if filenames:
        items = (discord.MediaGalleryItem(f"attachment://{name}") for name in filenames)
        layout.add_item(ui.MediaGallery(*items))
    return layout


def _result(view: JobView) -> ui.LayoutView:
    return _layout(*filenames_of(view))


BY_WEBHOOK = "PATCH /webhooks/900000000000000001/token/messages/CARD"
BY_BOT = "PATCH /channels/CHANNEL/messages/CARD"
NEW = "POST /channels/CHANNEL/messages"


async def test_a_card_is_edited_through_its_token(stage: Stage) -> None:
    """While the token lives, the card is edited as the answer that it is."""
    await stage.messages.edit(stage.view, _layout())
    assert stage.sent == [BY_WEBHOOK]
    assert stage.card.body["allowed_mentions"] == {"parse": []}


async def test_a_card_whose_message_is_unknown_is_edited_as_the_answer(stage: Stage) -> None:
    """A crash may come before the message's id is stored; Discord knows the answer by name."""
    await stage.messages.edit(stage.job(message_id=None), _layout())
    assert stage.sent == ["PATCH /webhooks/900000000000000001/token/messages/@original"]
    assert stage.card.edits == 1


@pytest.mark.parametrize("left_s", [-1.0, TOKEN_MARGIN_S - 1])
async def test_an_expired_token_is_not_tried(stage: Stage, left_s: float) -> None:
    """A token that has expired, or is about to, is left alone: the bot edits its own message."""
    await stage.messages.edit(stage.job(token_expires_at=stage.now + left_s), _layout())
    assert stage.sent == [BY_BOT]


async def test_a_token_that_discord_has_forgotten_is_followed_by_the_message(stage: Stage) -> None:
    """When Discord refuses the token, the files are sent once more, whole, to the message itself."""
    stage.wire.expired.add("token")
    await stage.messages.deliver(stage.view, _result(stage.view), [b"a picture"])
    assert stage.sent == [BY_WEBHOOK, BY_BOT]
    assert stage.card.files == {"img2img-7-1.jpg": b"a picture"}


@pytest.mark.parametrize("changes", [{"message_id": None}, {"private": True}, {"results_channel_id": 8}])
async def test_a_card_that_only_the_token_reached_is_out_of_reach(
    stage: Stage, changes: dict[str, Any]
) -> None:
    """Without its token, a card that one member sees, or that nobody knows the id of, can't be edited."""
    with pytest.raises(NowhereToPost):
        await stage.messages.edit(stage.job(token=None, **changes), _layout())
    assert stage.sent == []


@pytest.mark.parametrize("token", ["token", None])
@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [(404, GONE, NowhereToPost), (403, FORBIDDEN, NowhereToPost), (400, GONE, NowhereToPost)],
)
async def test_an_error_that_stays_is_final(
    stage: Stage, token: str | None, status: int, body: dict[str, Any], expected: type[Exception]
) -> None:
    """A message that is gone or forbidden is not worth another try."""
    stage.wire.faults.append(Fault("PATCH", "/messages/", status, body))
    with pytest.raises(expected):
        await stage.messages.edit(stage.job(token=token), _layout())


@pytest.mark.parametrize("token", ["token", None])
async def test_an_error_that_may_pass_is_raised_as_it_is(stage: Stage, token: str | None) -> None:
    """Whatever is Discord's own trouble is left to whoever tries again."""
    # Without the header "Via", the library takes a 429 for a ban by Cloudflare and does not wait.
    stage.wire.faults.append(Fault("PATCH", "/messages/", 429, {"message": "blocked"}))
    with pytest.raises(discord.HTTPException):
        await stage.messages.edit(stage.job(token=token), _layout())


async def test_a_picture_goes_into_its_card(stage: Stage) -> None:
    """Delivery edits the card that is there; nothing new is posted."""
    await stage.messages.deliver(stage.view, _result(stage.view), [b"a picture"])
    assert stage.sent == [BY_WEBHOOK]
    assert list(stage.card.files) == ["img2img-7-1.jpg"]


async def test_a_picture_without_card_is_posted_as_a_new_message_once(stage: Stage) -> None:
    """Where no card got through, the picture is posted in the channel; a second try shows no more."""
    view = stage.job(message_id=None, token=None)
    for _ in range(2):
        await stage.messages.deliver(view, _result(view), [b"a picture"])
    assert stage.sent == [NEW, NEW]
    assert sum(bool(m.files) for m in stage.wire.messages.values()) == 1


async def test_a_card_that_was_removed_is_not_posted_again(stage: Stage) -> None:
    """Somebody deleted the card that everyone saw: the picture is not forced upon the channel."""
    stage.wire.messages.clear()
    with pytest.raises(NowhereToPost):
        await stage.messages.deliver(stage.view, _result(stage.view), [b"a picture"])
    assert NEW not in stage.sent


async def test_a_private_picture_whose_token_has_expired_goes_to_its_member(stage: Stage) -> None:
    """It is sent as a direct message and never shown in the channel."""
    view = stage.job(private=True, token=None)
    await stage.messages.deliver(view, _result(view), [b"a picture"])
    assert stage.sent == [f"POST /channels/{ALICE_ID}/messages"]


async def test_an_age_restricted_private_picture_goes_nowhere_else(stage: Stage) -> None:
    """A direct message is not age-restricted: the picture stays in the history."""
    view = stage.job(private=True, age_restricted=True, token=None)
    with pytest.raises(NowhereToPost):
        await stage.messages.deliver(view, _result(view), [b"a picture"])
    assert stage.sent == []


async def test_a_member_who_takes_no_direct_messages_is_final(stage: Stage) -> None:
    """When Discord refuses to open a direct message, no try is repeated."""
    stage.wire.faults.append(Fault("POST", "/users/@me/channels", 403, FORBIDDEN))
    view = stage.job(private=True, token=None)
    with pytest.raises(NowhereToPost):
        await stage.messages.deliver(view, _result(view), [b"a picture"])


async def test_a_picture_can_go_to_another_channel(stage: Stage) -> None:
    """The results channel gets a new message; a second try returns the same one."""
    posted = [
        await stage.messages.post_elsewhere(
            stage.view, _result(stage.view), [b"a picture"], channel_id=CHANNEL_ID
        )
        for _ in range(2)
    ]
    assert posted[0].id == posted[1].id
    stage.wire.faults.append(Fault("POST", "/messages", 403, FORBIDDEN))
    with pytest.raises(NowhereToPost):
        await stage.messages.post_elsewhere(stage.view, _layout(), [b""], channel_id=CHANNEL_ID)


async def test_a_refused_card_is_removed_and_its_requester_told_why(stage: Stage) -> None:
    """Everyone's card goes; the sentence is seen by one member."""
    assert await stage.messages.withdraw(stage.view, "That file can't be used.")
    assert stage.card.id in stage.wire.deleted
    (note,) = stage.wire.messages.values()
    assert note.private
    assert note.body["content"] == "That file can't be used."


async def test_a_refusal_that_a_decoder_made_up_does_not_act(stage: Stage) -> None:
    """What a decoder child says of a picture may have been written by the picture."""
    for text in (*HOSTILE_TEXTS, "|" * 4000):
        assert await stage.messages.withdraw(stage.view, text)
    for note in stage.wire.messages.values():
        assert acting_in(note.body["content"]) == []
        assert len(note.body["content"]) <= 2000


async def test_a_card_can_not_be_withdrawn_without_its_token(stage: Stage) -> None:
    """Whether the token is known to have expired or Discord says so, the card is left as it is."""
    assert not await stage.messages.withdraw(stage.job(token=None), "no")
    assert stage.wire.messages
    stage.wire.expired.add("token")
    assert not await stage.messages.withdraw(stage.view, "no")


def test_files_are_named_by_job_and_seed() -> None:
    """Somebody who saves several pictures can tell them apart, and which seed made each."""
    assert filenames_of(a_view(samples=2)) == ["img2img-7-1.jpg", "img2img-7-2.jpg"]
    view = a_view(samples=2)
    assert filenames_of(replace(view, results=view.results[1:])) == ["img2img-7-2.jpg"]
