"""The error tree. Every error a person may see is one clear sentence that says what to do.

    BotError
    ├── UserError                 refused, nothing charged; the sentence is for the member
    │   ├── InvalidOption             an option out of range
    │   ├── UnusablePicture           not a picture, too large, damaged
    │   ├── NotAllowed                not allowed for this person or in this channel
    │   │   ├── RoleRequired              says which roles may
    │   │   ├── ChannelNotAllowed         says which channels are allowed
    │   │   └── PromptBlocked             says which word is blocked, if it is a word
    │   ├── LimitReached              a limit of the server or of the bot; says which
    │   ├── NotEnoughCredits          says how many are missing and when they renew
    │   ├── QueueFull                 says whose queue is full, and to try again later
    │   ├── AlreadyAsked              this exact request was accepted before
    │   ├── JobGone                   what a button or command refers to no longer exists
    │   └── Paused                    the bot accepts no new jobs at the moment
    ├── BackendError              a backend made no picture: the job fails and its hold is voided
    │   ├── BackendRefused            the request itself was refused (an option, the picture)
    │   ├── BackendFailed             the backend failed; retrying automatically would not help
    │   │   └── BackendUnreachable        nothing was sent; three in a row open the breaker
    │   ├── BackendUnsure             it may or may not have worked: retried once, at the operator's cost
    │   ├── BackendThrottled          rate limited for longer than a call may take
    │   └── BackendDown               stop calling it and notify the operator
    │       └── BackendOutOfCredits       the operator has no credits left there
    └── OperatorError             settings, disk, database: shown on the command line

`str(error)` is always the sentence to show; details for the log are in `detail`. If the
sentence ends with a time, that time is in `until` (seconds since 1970) and whoever shows
the sentence adds it.
"""

from __future__ import annotations

from collections.abc import Sequence


class BotError(Exception):
    """Something went wrong. Please try again in a minute."""

    def __init__(self, sentence: str = "", *, detail: str = "", until: float | None = None) -> None:
        # Each class's docstring is its default sentence.
        super().__init__(sentence or (type(self).__doc__ or "").strip().splitlines()[0])
        self.detail = detail
        self.until = until


class UserError(BotError):
    """That didn't work. You weren't charged; please try again."""


class InvalidOption(UserError):
    """One of the options is out of range; please choose another value."""


class UnusablePicture(UserError):
    """That file can't be used as a picture. Please attach a PNG, JPEG, GIF or WebP."""


class NotAllowed(UserError):
    """You aren't allowed to do that here; please ask a moderator."""


class RoleRequired(NotAllowed):
    """Only members with certain roles can use the bot here; please ask a moderator for one."""

    def __init__(self, role_ids: Sequence[int]) -> None:
        super().__init__()
        self.role_ids = tuple(role_ids)


class ChannelNotAllowed(NotAllowed):
    """The bot is limited to certain channels here; please use one of them."""

    def __init__(self, channel_ids: Sequence[int]) -> None:
        super().__init__()
        self.channel_ids = tuple(channel_ids)


class PromptBlocked(NotAllowed):
    """Your prompt has something that moderators have blocked here; please change it."""

    def __init__(self, word: str | None) -> None:
        super().__init__()
        self.word = word


class LimitReached(UserError):
    """You've reached a limit of this server. Please ask for less, or ask a moderator for more."""


class NotEnoughCredits(UserError):
    """You don't have enough credits for that; please ask a moderator for more."""


class QueueFull(UserError):
    """The queue is full. Please try again in a few minutes."""


class AlreadyAsked(UserError):
    """Your picture is already being made; please wait until it appears in its card."""


class JobGone(UserError):
    """That picture is no longer stored. Please start a new one."""


class Paused(UserError):
    """The bot isn't accepting new jobs right now. Please try again in a few minutes."""


class BackendError(BotError):
    """The picture couldn't be made. You weren't charged; please try again."""


class BackendRefused(BackendError):
    """The image service refused this. You weren't charged; please change an option and try again."""


class BackendFailed(BackendError):
    """The image service failed on this request. You weren't charged; please try again."""


class BackendUnreachable(BackendFailed):
    """The image service can't be reached right now. You weren't charged; please try again in a minute."""


class BackendUnsure(BackendError):
    """The image service didn't answer. You weren't charged; please try again."""


class BackendThrottled(BackendError):
    """The image service is too busy right now. You weren't charged; please try again in a few minutes."""


class BackendDown(BackendError):
    """The image service isn't working right now. You weren't charged; the bot's operator has been notified, so please try again later."""  # noqa: E501


class BackendOutOfCredits(BackendDown):
    """The bot has run out of credits at the image service. You weren't charged; its operator has been notified, so please try again later."""  # noqa: E501


class OperatorError(BotError):
    """The bot can't start. Run `img2img-bot check` to see why."""
