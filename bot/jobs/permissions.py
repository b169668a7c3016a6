"""Whose job it is, and who may do what with it: checked for every command and button press."""

from __future__ import annotations

from bot.actors import ChannelContext, Permission, Person
from bot.errors import NotAllowed
from db.jobs import Job


def require_owner(job: Job, person: Person) -> None:
    """Raise `NotAllowed` unless the job is this member's: nobody spends or shows what is another's."""
    if job.user_id != person.user_id:
        raise NotAllowed("Only the member who asked for this picture can use it.")


def require_owner_or_moderator(job: Job, person: Person, *, what: str) -> None:
    """Raise `NotAllowed` unless the job is this member's, or they may manage the messages of others."""
    if job.user_id != person.user_id and Permission.MANAGE_MESSAGES not in person.permissions:
        raise NotAllowed(f"Only the member who asked for this picture can {what} it.")


def require_age(job: Job, where: ChannelContext) -> None:
    """Raise `NotAllowed` where a picture of an age-restricted channel would be shown elsewhere."""
    if job.age_restricted and not where.age_restricted:
        raise NotAllowed("That picture was made in an age-restricted channel; please continue in one.")
