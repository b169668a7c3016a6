"""Whose job it is, and who may do what with it."""

from __future__ import annotations

import pytest

from bot.actors import ChannelContext, Permission, Person
from bot.errors import NotAllowed
from bot.jobs.permissions import require_age, require_owner, require_owner_or_moderator
from tests.support.job_views import a_view

JOB = a_view().job
OWNER = Person(1, JOB.user_id)
STRANGER = Person(1, 8)
MESSAGES_MANAGER = Person(1, 9, permissions=frozenset({Permission.MANAGE_MESSAGES}))
SERVER_MANAGER = Person(1, 9, permissions=frozenset({Permission.MANAGE_SERVER}))


@pytest.mark.parametrize("who", [STRANGER, MESSAGES_MANAGER, SERVER_MANAGER])
def test_a_job_is_used_by_its_owner_alone(who: Person) -> None:
    """Not even a moderator goes on from another's picture."""
    require_owner(JOB, OWNER)
    with pytest.raises(NotAllowed, match="Only the member who asked for this picture can use it"):
        require_owner(JOB, who)


@pytest.mark.parametrize("who", [STRANGER, SERVER_MANAGER])
def test_a_job_is_managed_by_its_owner_and_by_moderators_of_messages(who: Person) -> None:
    """Whoever may delete messages may cancel and delete pictures; managing the server is another right."""
    for allowed in (OWNER, MESSAGES_MANAGER):
        require_owner_or_moderator(JOB, allowed, what="delete")
    with pytest.raises(NotAllowed, match="can delete it"):
        require_owner_or_moderator(JOB, who, what="delete")


@pytest.mark.parametrize("is_restricted", [False, True])
@pytest.mark.parametrize("is_here", [False, True])
def test_restricted_pictures_stay_in_restricted_channels(is_restricted: bool, is_here: bool) -> None:
    """A picture of an age-restricted channel is shown in no other kind; all others are shown anywhere."""
    job, where = a_view(age_restricted=is_restricted).job, ChannelContext(age_restricted=is_here)
    if not is_restricted or is_here:
        require_age(job, where)
        return
    with pytest.raises(NotAllowed, match="age-restricted channel"):
        require_age(job, where)
