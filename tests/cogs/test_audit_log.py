"""The log channel follows what happens in its server, and members report pictures to it."""

from pathlib import Path
from typing import Any

import pytest

from bot.actors import Person
from bot.errors import BackendRefused
from bot.moderation.audit_log import LogItem
from cogs.audit_log import line_of
from db.audit_log import LogEntry, LogKind
from db.audit_records import AuditRecord
from db.jobs import Job
from db.operations import Operation
from tests.support.hostile_texts import HOSTILE_TEXTS, acting_in
from tests.support.job_views import a_view
from tests.support.moderators import calm, content_of, open_log, quota, report
from tests.support.simulated_server import Sketcher, open_world, said


async def test_the_log_channel_follows_jobs_actions_and_presses(tmp_path: Path) -> None:
    """Source, prompt, result, presses and moderation actions are mirrored, in order, with who and why."""
    async with open_world(tmp_path) as world:
        await world.img2img(prompt="before the log")
        log = await open_log(world)
        await world.img2img(prompt="a lighthouse")
        card = world.card
        assert card is not None
        await world.bob.click(card, label="Reroll")
        await world.moderator.slash(
            world.channel, "quota grant", member=world.bob, amount=5, reason="a prize"
        )
        await world.env.advance_time(10)
        said = content_of(log)
        assert "before the log" not in said
        assert said.index("requested by") < said.index("Made for") < said.index("pressed **Reroll**")
        assert "“a lighthouse”" in said
        assert "“a prize”" in said
        assert world.bob.mention in said
        (made,) = [message for message in log.history() if message.attachments]
        assert [attachment.filename.split("-")[0] for attachment in made.attachments] == ["source", "result"]


async def test_the_log_goes_on_after_a_restart(tmp_path: Path) -> None:
    """What happened while the log channel could not be reached is mirrored later, once."""
    async with open_world(tmp_path) as world:
        log = await open_log(world)
        world.env.inject_error("POST", f"/channels/{log.id}/messages", status=503, times=100)
        await world.img2img(prompt="a lighthouse")
        await world.env.advance_time(10)
        assert "lighthouse" not in content_of(log)
        world.calm()
        await world.crash_and_restart()
        await world.env.advance_time(10)
        assert content_of(log).count("Made for") == 1


@pytest.mark.parametrize("trouble", ["gone", "damaged", "can't be read"])
async def test_a_picture_that_can_not_be_read_keeps_no_line_back(tmp_path: Path, trouble: str) -> None:
    """Whatever became of a stored picture, the log channel gets its line and all that comes after it."""
    async with open_world(tmp_path) as world:
        log = await open_log(world)
        await world.img2img(prompt="a lighthouse")
        for path in [path for path in (tmp_path / "pictures").rglob("*") if path.is_file()]:
            path.unlink()
            if trouble == "damaged":
                path.write_bytes(b"x")
            elif trouble == "can't be read":
                path.mkdir()
        await world.env.advance_time(10)
        await quota(world, "grant", member=world.bob, amount=5)
        await world.env.advance_time(10)
        assert content_of(log).count("Made for") == 1
        assert "0 → 5" in content_of(log)


async def test_a_report_reaches_the_log(tmp_path: Path) -> None:
    """Any member can report a picture, once; without a log channel they are sent to a moderator."""
    async with open_world(tmp_path) as world:
        await world.img2img()
        card = world.card
        assert card is not None
        assert "no log channel" in await report(world, card)
        log = await open_log(world)
        assert "sent to the moderators" in await report(world, card)
        assert "already reported this picture" in await report(world, card)
        await world.env.advance_time(10)
        assert f"🚩 {world.bob.mention} reported" in content_of(log)
        assert "“it is me”" in content_of(log)


def _line(kind: LogKind, *, note: str = "", record: AuditRecord | None = None, **changes: Any) -> str:
    entry = LogEntry(
        id=1, guild_id=1, kind=kind, user_id=9, job_id=7, audit_record_id=None, note=note, at=0.0
    )
    job: Job = a_view(**changes).job
    return line_of(LogItem(entry, record, None if record else job, ()))


@pytest.mark.parametrize(
    ("kind", "note", "changes", "line"),
    [
        ("asked", "", {}, "🖼️ <t:0:T> Picture requested by <@9> in <#3>: “a harbour” · job 7"),
        (
            "asked",
            "",
            {"operation": Operation.VARY_SUBTLE, "private": True},
            "🖼️ <t:0:T> Subtle variation (private) requested by <@9> in <#3>: “a harbour” · job 7",
        ),
        ("rendered", "", {"charged": 1}, "Made for <@9>, 1 credit: [job 7]("),
        ("rendered", "", {"private": True}, "Made for <@9>, 4 credits: job 7 · “a harbour”"),
        ("failed", "", {"failure": "It broke."}, "Job 7 by <@9> failed: It broke."),
        ("failed", "", {}, "Job 7 by <@9> failed: "),
        ("cancelled", "", {}, "Job 7 by <@9> was cancelled"),
        ("pressed", "reroll", {}, "<@9> pressed **Reroll** on [job 7]("),
        ("pressed", "vary_strong", {}, "<@9> pressed **Vary (strong)** on [job 7]("),
        ("pressed", "strong", {}, "<@9> pressed **Vary (strong)** on [job 7]("),
        ("pressed", "no_such", {}, "<@9> pressed **no\\_such** on [job 7]("),
        ("reported", "it is me", {}, "<@9> reported [job 7]("),
        ("deleted", "", {"message_id": None}, "<@9> deleted job 7 by <@2> · “a harbour”"),
    ],
)
def test_each_entry_is_a_sentence(kind: LogKind, note: str, changes: dict[str, Any], line: str) -> None:
    """The log reads as people speak: who did what, to which picture, in whose words."""
    shown = _line(kind, note=note, **changes)
    assert all(part in shown for part in line.split("<t:0:T> "))


KINDS: tuple[LogKind, ...] = ("asked", "rendered", "failed", "cancelled", "pressed", "reported", "deleted")


@pytest.mark.parametrize("kind", KINDS)
def test_no_text_of_an_entry_acts(kind: LogKind) -> None:
    """Prompt, report and failure are shown as text, on one line, within a message."""
    for text in (*HOSTILE_TEXTS, "|" * 1000):
        params = a_view().params.model_copy(update={"prompt": text})
        line = _line(kind, note=text, failure=text, params_json=params.model_dump_json())
        assert acting_in(line) == []
        assert "\n" not in line
        assert len(line) <= 2000


def test_a_record_in_the_log_is_only_text() -> None:
    """Reasons, and what version 0.1 wrote about an action, are shown as text."""
    for text in HOSTILE_TEXTS:
        record = AuditRecord(1, 1, 9, 2, "text", None, None, reason=text, at=0.0, detail=text)
        line = _line("action", record=record)
        assert line.startswith("🛠️ ")
        assert acting_in(line) == []
        assert "\n" not in line


async def test_what_people_write_is_only_text_in_the_log_channel(tmp_path: Path) -> None:
    """Prompts, reports, reasons and blocked words come to the log channel without acting there."""
    async with open_world(tmp_path, daily_allowance=1000) as world:
        log = await open_log(world)
        for text in HOSTILE_TEXTS:
            await world.img2img(prompt=f"x {text}", negative_prompt=text)
            await report(world, world.card, text)
            await quota(world, "grant", member=world.bob, amount=5, reason=text)
            if "\x00" not in text:
                shown = await calm(world, "block", text=text, reason=text)
                assert acting_in(shown) == []
        await world.env.advance_time(60)
        posted = content_of(log)
        assert posted.count("reported") == posted.count("grant") == len(HOSTILE_TEXTS)
        assert acting_in(posted) == []
        assert acting_in(await quota(world, "history")) == []
        assert acting_in(await calm(world, "show")) == []
        for message in log.history():
            assert len(message.content) <= 2000


async def test_a_failed_job_is_in_the_log_with_its_reason(tmp_path: Path) -> None:
    """What went wrong is logged in the sentence that the member read, and nothing of it acts."""
    nasty = "**EVIL** [evil](https://evil.example)"
    async with open_world(tmp_path, backends=[Sketcher(errors=[BackendRefused(nasty)])]) as world:
        log = await open_log(world)
        await world.img2img()
        await world.env.advance_time(10)
        assert "failed: " in content_of(log)
        assert acting_in(content_of(log)) == []


async def test_a_report_needs_a_picture_of_this_server(tmp_path: Path) -> None:
    """Once a picture is deleted, its report button says so before anybody writes a report."""
    async with open_world(tmp_path) as world:
        await open_log(world)
        await world.img2img()
        owner = Person(world.guild.id, world.alice.id)
        (view,) = await world.app.job_records.history(owner)
        await world.app.jobs.delete(owner, view.job.id)
        late = await world.bob.click(world.card, label="Report")
        assert "no longer stored" in said(late).content
