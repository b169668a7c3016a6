"""What a member or moderator can ask for: the one spelling in commands, buttons, jobs and the audit log."""

from __future__ import annotations

from enum import StrEnum


class Operation(StrEnum):
    """One operation. The first four make a job and are stored with it; the others act on one."""

    IMG2IMG = "img2img"
    REROLL = "reroll"
    VARY_SUBTLE = "vary_subtle"
    VARY_STRONG = "vary_strong"
    CANCEL = "cancel"
    DELETE = "delete"
    SHOW = "show"
    REPORT = "report"
    #: Of a moderator's proposed action, not of a job.
    CONFIRM = "confirm"
    WITHDRAW = "withdraw"
