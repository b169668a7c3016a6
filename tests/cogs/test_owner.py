"""The bot's owner: alerts by direct message, and `/operator`."""

from pathlib import Path

import pytest

from bot.app import Health
from bot.events import OperatorAlert
from bot.jobs.service import PauseReason
from cogs.owner import ALERTS_PER_HOUR_MAX, REPEAT_S_MIN, health_text
from db.providers import Balance
from tests.support.hostile_texts import HOSTILE_TEXTS, acting_in
from tests.support.simulated_server import World, open_world, said


def _watch_alerts(world: World, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect what is sent to the owner; the simulator's owner takes no direct messages."""
    sent: list[str] = []

    class Owner:
        async def send(self, text: str, **_: object) -> None:
            sent.append(text)

    class Info:
        owner = Owner()

    async def info() -> Info:
        return Info()

    monkeypatch.setattr(world.bot, "application_info", info)
    return sent


async def test_an_alert_is_sent_once_an_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same sentence comes again only after an hour, another one at once."""
    async with open_world(tmp_path) as world:
        sent = _watch_alerts(world, monkeypatch)
        for sentence in ("The disk is full.", "The disk is full.", "Segmind is out of service."):
            world.app.events.emit(OperatorAlert(sentence))
        await world.env.settle()
        assert sent == ["⚠️ The disk is full.", "⚠️ Segmind is out of service."]
        await world.env.advance_time(REPEAT_S_MIN)
        world.app.events.emit(OperatorAlert("The disk is full."))
        await world.env.settle()
        assert len(sent) == 3


async def test_many_alerts_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much goes wrong at once, the owner's messages stay readable."""
    async with open_world(tmp_path) as world:
        sent = _watch_alerts(world, monkeypatch)
        for number in range(ALERTS_PER_HOUR_MAX + 5):
            world.app.events.emit(OperatorAlert(f"Fault {number}."))
        await world.env.settle()
        assert len(sent) == ALERTS_PER_HOUR_MAX


async def test_what_a_service_answered_is_only_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An alert repeats foreign texts; none of them acts, and each fits into a message."""
    async with open_world(tmp_path) as world:
        sent = _watch_alerts(world, monkeypatch)
        for text in (*HOSTILE_TEXTS, "|" * 5000):
            world.app.events.emit(OperatorAlert(f"Segmind is out of service: {text}"))
        await world.env.settle()
        assert len(sent) == len(HOSTILE_TEXTS) + 1
        assert acting_in("\n".join(sent)) == []
        assert max(map(len, sent)) <= 2000


async def test_an_owner_out_of_reach_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Who takes no direct messages finds the alert's failure in the log."""
    async with open_world(tmp_path) as world:
        world.env.inject_error("GET", "/oauth2/applications/@me", status=503, times=100)
        world.app.events.emit(OperatorAlert("The disk is full."))
        await world.env.settle()
        world.calm()
        assert "Could not send the owner a direct message" in caplog.text


@pytest.mark.parametrize(
    ("health", "daily_max", "lines"),
    [
        (
            Health(0, 0, [], None),
            None,
            ["Waiting jobs: **0**", "Servers: **3**", "Credits spent today in all servers: **0**"],
        ),
        (
            Health(1, 1, [Balance("segmind", 1.0, 60.0, alerted=False)], None),
            100,
            [
                "Waiting jobs: **1**",
                "Servers: **3**",
                "Credits spent today in all servers: **1** of at most 100",
                "Credits left at segmind: **1** (<t:60:R>)",
            ],
        ),
        (
            Health(0, 0, [], PauseReason.RESTARTING),
            None,
            [
                "Waiting jobs: **0**",
                "Servers: **3**",
                "Credits spent today in all servers: **0**",
                "⚠️ The bot is restarting. Please try again in a minute.",
            ],
        ),
    ],
)
def test_health_is_a_short_list(health: Health, daily_max: int | None, lines: list[str]) -> None:
    """Each line is a label and a number."""
    assert health_text(health, servers=3, daily_max=daily_max).splitlines() == lines


async def test_only_the_owner_sees_it(tmp_path: Path) -> None:
    """The owner gets the list in private; a moderator whom a server let in gets a sentence."""
    async with open_world(tmp_path) as world:
        root = next(c for c in await world.bot.tree.fetch_commands() if c.name == "operator")
        world.guild.set_command_permissions(root.id, {world.alice: True, world.bob: True})
        world.bot.owner_id = world.alice.id
        answer = await world.alice.slash(world.channel, "operator")
        assert answer.ephemeral
        assert "Servers: **1**" in said(answer).content
        refused = await world.bob.slash(world.channel, "operator")
        assert said(refused).content == "Only the bot's owner can use this command."
