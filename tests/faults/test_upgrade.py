"""A database written by version 0.1.0, as a crash left it, goes on under this version.

The fixture was written by that version's own program: two finished jobs, two that ran and one that
waited when it was killed, grants, limits, a blocklist, a role, a log channel, and a proposal that
nobody had confirmed.
"""

from __future__ import annotations

import gzip
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import discord
import pytest
import simcord
from discord import ui

from bot.actors import Person
from db import audit_records
from db.operations import Operation
from tests.support.hostile_texts import HOSTILE_TEXTS, acting_in
from tests.support.simulated_server import Sketcher, World, open_world, said

VERSION_0_1: Final = Path(__file__).parents[1] / "fixtures" / "version-0.1.0"
FINISHED_JOB: Final = 1456074443980800037


def _unpack(folder: Path) -> None:
    (folder / "bot.sqlite3").write_bytes(gzip.decompress((VERSION_0_1 / "bot.sqlite3.gz").read_bytes()))
    shutil.copytree(VERSION_0_1 / "pictures", folder / "pictures")


async def _all(world: World, sql: str) -> list[tuple[Any, ...]]:
    return await world.app.db.read(lambda tx: [tuple(row) for row in tx.execute(sql)])


async def _press(world: World, who: simcord.MemberActor, custom_id: str) -> simcord.InteractionResult:
    """Let somebody press a button that the version before has posted."""
    channel = world.bot.get_channel(world.channel.id)
    assert isinstance(channel, discord.TextChannel)
    view = ui.View(timeout=None)
    view.add_item(ui.Button(label="Old", custom_id=custom_id))
    await channel.send("posted by the version before", view=view)
    await world.env.settle()
    return await who.click(world.card, label="Old")


async def test_jobs_balances_and_settings_are_still_there(tmp_path: Path) -> None:
    """Credits, limits and the blocklist are as they were; what ran or waited is made, and paid once."""
    _unpack(tmp_path)
    sketcher = Sketcher()
    async with open_world(tmp_path, backends=[sketcher]) as world:
        await world.env.settle()
        assert await world.ledger_faults() == []
        states = await _all(world, "SELECT state, charged FROM job ORDER BY id")
        assert states[:2] == [("delivered", 4), ("delivered", 2)]
        assert {state for state, _ in states[2:]} <= {"delivered", "undeliverable"}
        assert [charged for _, charged in states[2:]] == [2, 2, 2]
        assert len(sketcher.calls) == 3
        bob = await world.app.credits.wallet(Person(world.guild.id, world.bob.id))
        assert (bob.balance, bob.allowance_left, bob.on_hold) == (25, 36, 0)
        assert (await world.app.credits.wallet(Person(world.guild.id, world.alice.id))).allowance == 60
        assert (
            "You asked for 51 steps, but this server allows 50" in said(await world.img2img(steps=51)).content
        )
        for prompt in ("a GORY scene", "a bl0od moon"):
            assert "blocked" in said(await world.img2img(prompt=prompt)).content


@pytest.mark.parametrize(
    ("custom_id", "operation"),
    [
        (f"i2i:subtle:{FINISHED_JOB}:1", Operation.VARY_SUBTLE),
        (f"i2i:strong:{FINISHED_JOB}:0", Operation.VARY_STRONG),
        (f"i2i:reroll:{FINISHED_JOB}", Operation.REROLL),
    ],
)
async def test_buttons_under_old_cards_work(tmp_path: Path, custom_id: str, operation: Operation) -> None:
    """A member goes on from a picture of the version before."""
    _unpack(tmp_path)
    async with open_world(tmp_path) as world:
        await _press(world, world.alice, custom_id)
        views = await world.app.job_records.history(Person(world.guild.id, world.alice.id))
        made = [view.job.parent_id for view in views if view.job.operation is operation]
        assert made == [FINISHED_JOB]


async def test_an_old_picture_is_shown_and_deleted(tmp_path: Path) -> None:
    """The history opens pictures of the version before, and their owner may delete them."""
    _unpack(tmp_path)
    async with open_world(tmp_path) as world:
        shown = await _press(world, world.alice, f"i2i:show:{FINISHED_JOB}")
        assert shown.ephemeral
        assert len(said(shown).attachments) == 2
        await _press(world, world.alice, f"i2i:delete:{FINISHED_JOB}")
        states = await _all(world, "SELECT id FROM job WHERE deleted_at IS NOT NULL")
        assert states == [(FINISHED_JOB,)]


async def test_the_record_of_moderators_goes_on(tmp_path: Path) -> None:
    """What moderators did is listed in the words of then, the log channel continues where it was."""
    _unpack(tmp_path)
    async with open_world(tmp_path) as world:
        answer = await world.moderator.slash(world.channel, "quota history")
        text = said(answer).content
        assert "0 → 25" in text
        assert "“a prize”" in text
        assert "the most steps: not set" in text.lower()
        kinds = await _all(world, "SELECT kind, count(*) FROM audit_log GROUP BY kind ORDER BY kind")
        assert dict(kinds)["action"] == 7
        assert await _all(world, "SELECT last_mirrored_id FROM guild") == [(13,)]


async def test_words_that_version_0_1_recorded_never_act(tmp_path: Path) -> None:
    """It stored moderators' texts inside its own words: all of it is shown as text."""
    _unpack(tmp_path)
    async with open_world(tmp_path) as world:
        old = await world.app.db.read(lambda tx: audit_records.latest(tx, guild_id=world.guild.id, limit=1))
        for number, text in enumerate(HOSTILE_TEXTS):
            detail = f"The word {text} was allowed and is now **blocked**."
            record = replace(old[0], interaction_id=number, detail=detail, reason=text, changes_json=None)
            await world.app.db.write(partial(audit_records.insert, record=record))
        answer = await world.moderator.slash(world.channel, "quota history")
        assert acting_in(said(answer).content) == []
        assert "<@900000000000000009>" not in said(answer).content
        exported = await world.moderator.slash(world.channel, "quota export", what="actions")
        table = (await said(exported).attachments[0].read()).decode()
        assert all(line.isprintable() for line in table.splitlines())
        assert len(table.splitlines()) == 1 + 7 + len(HOSTILE_TEXTS)


async def test_a_proposal_of_the_version_before_has_expired(tmp_path: Path) -> None:
    """A confirmation that was left open changes nothing, and says to run the command again."""
    _unpack(tmp_path)
    async with open_world(tmp_path) as world:
        answer = await _press(world, world.moderator, "i2i:confirm:1456074443980800049")
        assert "run the command again" in said(answer).content
        assert (await world.app.credits.wallet(Person(world.guild.id, world.bob.id))).balance == 25
