"""Who may do what."""

import pytest

from bot.actors import Actor, Permission, Person
from bot.errors import NotAllowed


@pytest.mark.parametrize(
    "has", [frozenset(), {Permission.MANAGE_SERVER}, {Permission.MANAGE_MESSAGES}, set(Permission)]
)
@pytest.mark.parametrize("needed", [None, *Permission])
def test_a_permission_is_there_or_is_named(has: set[Permission], needed: Permission | None) -> None:
    """Whoever lacks what an action needs reads which permission it is; none implies another."""
    person = Person(1, 7, permissions=frozenset(has))
    if needed is None or needed in has:
        person.require(needed)
        return
    name = {"manage_guild": "Manage Server", "manage_messages": "Manage Messages"}[needed]
    with pytest.raises(NotAllowed, match=f"You need the {name} permission to do that"):
        person.require(needed)


def test_an_actor_acts_as_their_person() -> None:
    """Server and member of an interaction are those of the person in it."""
    actor = Actor(5, Person(1, 7), "a reason")
    assert (actor.guild_id, actor.user_id) == (1, 7)
