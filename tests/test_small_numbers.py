"""Sentences with numbers read right for none, one and two of each thing."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast
from unittest.mock import Mock

import pytest
from discord import ui

from bot.actors import Person
from bot.app import Health
from bot.credits.limits import Explanation, RuleSource, Ruling
from bot.credits.service import WalletSummary
from bot.errors import QueueFull
from bot.events import Events, OperatorAlert
from bot.gateway.client import Img2ImgBot
from bot.jobs.admission import Admission, QueueLimits
from bot.moderation.changes import Change
from bot.ops.backup import Copied
from bot.pictures.sizes import MEGAPIXEL
from bot.text import counted, credits_text, megapixels_text
from bot.upkeep import Upkeep
from cogs import cards
from cogs.changes import changes_text
from cogs.credits import wallet_card
from cogs.history import history_card
from cogs.owner import health_text
from cogs.quota import board_text, show_text
from db.providers import Balance
from tests.support.job_views import a_view
from tests.support.moderators import confirmed, quota
from tests.support.simulated_server import open_world, said

NOUNS: Final = "(?:more |old )?(?:credit|picture|sample|step|job|server|megapixel|fault)"
_WRONG: Final = re.compile(rf"(?<![\d.,])(?:(?<!of )1 {NOUNS}s|[02] {NOUNS}\b)")


def _text(card: ui.LayoutView) -> str:
    return "\n".join(item.content for item in card.walk_children() if isinstance(item, ui.TextDisplay))


def _view(count: int, **changes: Any) -> Any:
    view = a_view(charged=count, price=count, **changes)
    return replace(view, params=view.params.model_copy(update={"num_inference_steps": count}))


def _wallet(count: int) -> WalletSummary:
    return WalletSummary(allowance=count, allowance_left=count, renews_at=9, balance=count, on_hold=count)


def _explanation(count: int) -> Explanation:
    names = ("daily_cap", "running_max", "waiting_max", "steps_max", "samples_max", "slow_s")
    limits = {name: Ruling(count, RuleSource.SERVER) for name in names}
    limits["pixels_max"] = Ruling(count * MEGAPIXEL, RuleSource.SERVER)
    return Explanation(Ruling(count, RuleSource.BOT_DEFAULT), limits, spent_by_server=count)


def _health(count: int) -> Health:
    return Health(count, count, [Balance("x", count, 0.0, alerted=False)], None)


def _full_queue(count: int) -> str:
    admission = Admission(QueueLimits(member_waiting_max=count or 1))
    for _ in range(count or 1):
        admission.add(1, 2)
    with pytest.raises(QueueFull) as refused:
        admission.check(1, 2)
    return str(refused.value)


SHOWN: Final[dict[str, Callable[[int], str]]] = {
    "waiting card": lambda n: _text(cards.waiting_card(_view(n), cards.Waiting(n or 1, n))),
    "running card": lambda n: _text(cards.running_card(_view(n), cards.Running(True, n, 2, wait_s=n))),
    "result card": lambda n: _text(cards.result_card(_view(n), cards.Maker("A", uses_model=True), ["a.jpg"])),
    "partial result": lambda n: _text(
        cards.result_card(_view(n, samples=n + 1, pictures=1), cards.Maker("A", uses_model=True), ["a.jpg"])
    ),
    "history": lambda n: _text(history_card([_view(n, samples=n + 1)])),
    "wallet": lambda n: _text(wallet_card(_wallet(n), n, [])),
    "quota show": lambda n: show_text(Person(1, 2), _wallet(n), _explanation(n)),
    "leaderboard": lambda n: board_text([(5, n, n)]),
    "operator": lambda n: health_text(_health(n), servers=n, daily_max=n),
    "changes": lambda n: changes_text(
        [Change("balance", 0, n, 5), Change("pixels_max", None, n * MEGAPIXEL), Change("slow_s", 9, n)]
    ),
    "full queue": _full_queue,
    "counted": lambda n: f"{counted(n, 'job')}, {credits_text(n)}, {megapixels_text(n * MEGAPIXEL)}",
    "copied": lambda n: str(Copied(n, n, n)),
}  # fmt: skip


@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("name", list(SHOWN))
def test_small_numbers_read_right(name: str, count: int) -> None:
    """Nobody reads "1 credits" or "2 credit", on cards, in lists, in refusals or in a terminal."""
    text = SHOWN[name](count).replace("*", "")
    assert _WRONG.findall(text) == [], text


@pytest.mark.parametrize("count", [0, 1, 2])
async def test_refusals_read_right(tmp_path: Path, count: int) -> None:
    """Prices, limits, balances and caps are counted right in the sentences that refuse."""
    shown = []
    async with open_world(tmp_path, daily_allowance=count, price_per_megapixel_step=0) as world:
        at_least_one = max(count, 1)
        shown.append(said(await world.img2img(samples=4)).content)
        await confirmed(world, "server", steps=at_least_one, samples=at_least_one, giving=True)
        shown += [said(await world.img2img(steps=n)).content for n in (2, 3) if n > at_least_one]
        shown += [said(await world.img2img(steps=1, samples=n)).content for n in (2, 3) if n > at_least_one]
        options: dict[str, Any] = {"member": world.bob, "amount": count + 1}
        shown.append(said(await world.alice.slash(world.channel, "credits give", **options)).content)
        await quota(world, "grant", member=world.alice, amount=100)
        await confirmed(world, "server", clear="steps", daily_cap=count)
        shown.append(said(await world.img2img(samples=at_least_one)).content)
        shown.append(await quota(world, "show", member=world.alice))
        shown.append(await quota(world, "leaderboard"))
    for text in shown:
        assert _WRONG.findall(text.replace("*", "")) == [], text


@pytest.mark.parametrize("more", [0, 1, 2])
async def test_an_alert_counts_the_faults(more: int) -> None:
    """The operator reads the first fault of the ledger and how many more there are."""
    alerts: list[str] = []
    events = Events()
    events.subscribe(lambda event: alerts.append(cast("OperatorAlert", event).sentence))

    async def read(_: object) -> list[str]:
        return [f"Account {n} is off." for n in range(more + 1)]

    upkeep = Upkeep(
        db=cast("Any", SimpleNamespace(read=read)),
        clock=Mock(),
        store=Mock(),
        job_service=Mock(),
        events=events,
        retention_days=30,
    )
    await upkeep.check_ledger()
    endings = ["Account 0 is off.", "There is 1 more fault.", "There are 2 more faults."]
    assert alerts[0].endswith(endings[more])


@pytest.mark.parametrize(("servers", "words"), [(0, "0 servers"), (1, "1 server"), (2, "2 servers")])
async def test_the_first_line_of_the_log_counts_the_servers(
    servers: int, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An operator sees where the bot is."""
    caplog.set_level(logging.INFO)
    bot: Any = SimpleNamespace(user="img2img#1", guilds=[None] * servers)
    await Img2ImgBot.on_ready(bot)
    assert caplog.messages == [f"Ready as img2img#1 in {words}"]
