"""The error tree: every error is a sentence for whoever sees it."""

import inspect
import re

import pytest

from bot import errors
from bot.errors import BotError, ChannelNotAllowed, NotEnoughCredits, PromptBlocked, RoleRequired

ERRORS = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, BotError) and value.__init__ is BotError.__init__
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_every_error_has_a_sentence_of_its_own(error: type[BotError]) -> None:
    """An error that is raised without words still says something whole, in its own words."""
    sentence = str(error())
    assert re.fullmatch(r"[A-Z].*[^ ]\.", sentence)
    assert sentence not in {str(other()) for other in ERRORS if other is not error}


def _drawn_parents() -> dict[str, str | None]:
    """Return the parent of each class as the file's docstring draws it."""
    parents: dict[str, str | None] = {}
    above: list[tuple[int, str]] = []
    for line in (inspect.getdoc(errors) or "").splitlines():
        name = line.lstrip(" │├└─").split(" ")[0]
        if not isinstance(getattr(errors, name, None), type):
            continue
        depth = len(line) - len(line.lstrip(" │├└─"))
        above = [(other, parent) for other, parent in above if other < depth]
        parents[name] = above[-1][1] if above else None
        above.append((depth, name))
    return parents


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    """Whoever reads the top of the file sees every class, each below its parent."""
    tree = {
        name: error.__bases__[0].__name__ if error is not BotError else None
        for name, error in vars(errors).items()
        if isinstance(error, type) and issubclass(error, BotError)
    }
    assert _drawn_parents() == tree


def test_a_given_sentence_replaces_the_default() -> None:
    """The sentence is shown, the detail is for the log, and a time at its end is kept apart."""
    error = NotEnoughCredits("That costs 4.", detail="account 5", until=12.5)
    assert (str(error), error.detail, error.until) == ("That costs 4.", "account 5", 12.5)
    plain = NotEnoughCredits()
    assert (plain.detail, plain.until) == ("", None)


def test_some_refusals_carry_what_to_name() -> None:
    """Which roles, channels or word: the words for them are made where they are shown."""
    assert RoleRequired([11, 12]).role_ids == (11, 12)
    assert ChannelNotAllowed([5]).channel_ids == (5,)
    assert (PromptBlocked("gory").word, PromptBlocked(None).word) == ("gory", None)
    for error in (RoleRequired([11]), ChannelNotAllowed([5]), PromptBlocked("gory")):
        assert str(error) == (type(error).__doc__ or "").strip()
