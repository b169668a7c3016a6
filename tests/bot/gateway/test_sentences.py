"""Every error is a sentence for a person: what happened, and what to do."""

import inspect
import re
from types import SimpleNamespace
from typing import Any

import discord
import pytest
from discord import app_commands

from bot import errors
from bot.errors import (
    BotError,
    ChannelNotAllowed,
    LimitReached,
    NotEnoughCredits,
    PromptBlocked,
    RoleRequired,
)
from bot.gateway.sentences import NAMES_LISTED, NO_DISK, NOT_A_MEMBER, NOT_IN_A_SERVER, sentence_of
from tests.support.hostile_texts import HOSTILE_TEXTS, acting_in

CLASSES: list[type[BotError]] = [
    value
    for _, value in inspect.getmembers(errors, inspect.isclass)
    if issubclass(value, BotError) and value.__module__ == errors.__name__
]
#: What an error's constructor takes instead of a sentence.
ARGUMENTS: dict[type[BotError], tuple[Any, ...]] = {
    RoleRequired: ([5],),
    ChannelNotAllowed: ([6],),
    PromptBlocked: (None,),
}


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_has_a_sentence_that_says_what_to_do(kind: type[BotError]) -> None:
    """Its docstring is one line, whole sentences, with a request in it."""
    for sentence in (str(kind(*ARGUMENTS.get(kind, ()))), sentence_of(kind(*ARGUMENTS.get(kind, ())))):
        assert sentence is not None
        _assert_is_for_people(sentence)
        assert re.search(r"\b[Pp]lease\b|\bRun `", sentence)


@pytest.mark.parametrize("sentence", [NO_DISK, NOT_A_MEMBER, NOT_IN_A_SERVER])
def test_every_fixed_sentence_is_for_people(sentence: str) -> None:
    """So are those that belong to no error of the bot's own."""
    _assert_is_for_people(sentence)


def _assert_is_for_people(sentence: str) -> None:
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert sentence[0].isupper()
    names = [kind.__name__ for kind in CLASSES]
    for trace in (
        "None",
        "object at",
        "Error",
        "Exception",
        "<class",
        "{",
        "}",
        *names,
    ):
        assert not re.search(rf"(?<!\w){re.escape(trace)}(?!\w)", sentence), trace


@pytest.mark.parametrize(
    ("count", "sentence"),
    [
        (1, "Only members with <@&1> can use the bot here; please ask a moderator for that role."),
        (
            2,
            "Only members with <@&1> or <@&2> can use the bot here;"
            " please ask a moderator for one of these roles.",
        ),
        (
            9,
            "Only members with <@&1>, <@&2>, <@&3>, <@&4>, <@&5> or another such role can use the bot here;"
            " please ask a moderator for one of these roles.",
        ),
    ],
)  # fmt: skip
def test_the_roles_that_may_are_named(count: int, sentence: str) -> None:
    """One role, several, or the first few of many."""
    assert sentence_of(RoleRequired(range(1, count + 1))) == sentence


@pytest.mark.parametrize(
    ("count", "channels"),
    [
        (1, "<#1>"),
        (2, "<#1> or <#2>"),
        (NAMES_LISTED, "<#1>, <#2>, <#3>, <#4> or <#5>"),
        (NAMES_LISTED + 1, "<#1>, <#2>, <#3>, <#4>, <#5> or another allowed channel"),
    ],
)
def test_the_channels_that_are_allowed_are_named(count: int, channels: str) -> None:
    """One channel, several, or the first few of many."""
    expected = f"The bot isn't allowed in this channel; please use {channels}."
    assert sentence_of(ChannelNotAllowed(range(1, count + 1))) == expected


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("gory", "Moderators have blocked “gory” in prompts here; please change yours."),
        ("go_ry", "Moderators have blocked “go\\_ry” in prompts here; please change yours."),
        (None, "Your prompt has something that moderators have blocked here; please change it."),
    ],
)
def test_a_blocked_word_is_named_and_a_pattern_is_not(word: str | None, sentence: str) -> None:
    """A member learns which word to change; a pattern would say nothing to them."""
    assert sentence_of(PromptBlocked(word)) == sentence


def test_a_blocked_word_never_acts() -> None:
    """The word is a moderator's text."""
    for text in HOSTILE_TEXTS:
        assert acting_in(str(sentence_of(PromptBlocked(text)))) == []


@pytest.mark.parametrize("kind", [LimitReached, NotEnoughCredits])
@pytest.mark.parametrize("until", [0, 1_790_000_000.9])
def test_a_time_is_shown_as_discord_shows_times(kind: type[BotError], until: float) -> None:
    """Each reader sees it in their own words and time zone."""
    assert sentence_of(kind("Try again", until=until)) == f"Try again <t:{int(until)}:R>."


@pytest.mark.parametrize("text", HOSTILE_TEXTS, ids=range(len(HOSTILE_TEXTS)))
def test_a_value_that_would_act_is_not_repeated(text: str) -> None:
    """What a client sent in place of an option is named only if it is harmless."""
    transformer: Any = SimpleNamespace(_error_display_name="int")
    error = app_commands.TransformerError(text, discord.AppCommandOptionType.string, transformer)
    assert sentence_of(error) == "That isn't an option here; please pick one from the list."
