"""The error tree. Whatever a person may meet is one clear sentence that says what to do.

    BotError
    ├── UserError                 refused: nothing was charged, the sentence is for the member
    │   ├── InvalidOption             an option outside its range
    │   ├── UnusablePicture           not a picture, too large, damaged
    │   ├── NotAllowed                not this person, not here
    │   │   ├── RoleRequired              says which roles may
    │   │   ├── ChannelNotAllowed         says which channels are
    │   │   └── PromptBlocked             says which word is blocked, if it is a word
    │   ├── LimitReached              a limit of the server or of the bot: says which
    │   ├── NotEnoughCredits          says what is missing and when enough is back
    │   ├── QueueFull                 says for whom, and to come back
    │   ├── AlreadyAsked              this very request was taken before
    │   ├── JobGone                   a button of something that is not there any more
    │   └── Paused                    the bot is not taking work just now
    ├── BackendError              a backend made no picture: the job fails, its hold is voided
    │   ├── BackendRefused            the request itself was refused (an option, the picture)
    │   ├── BackendFailed             the backend broke; trying again by itself would not help
    │   │   └── BackendUnreachable        nothing went out: three in a row, and it is left alone for a while
    │   ├── BackendUnsure             it may have worked, nobody can tell: once more at our cost
    │   ├── BackendThrottled          told to slow down for longer than a call may last
    │   └── BackendDown               stop calling it, tell the operator
    │       └── BackendOutOfCredits       the operator's credits there are used up
    └── OperatorError             settings, disk, database: shown on the command line

`str(error)` is always the sentence to show; details for the log go into `detail`. A
sentence that ends with a time leaves it in `until`, for whoever shows it to word it.
"""

from __future__ import annotations

from collections.abc import Sequence


class BotError(Exception):
    """Something went wrong. Please try again in a minute."""

    def __init__(self, sentence: str = "", *, detail: str = "", until: float | None = None) -> None:
        super().__init__(sentence or (type(self).__doc__ or "").strip().splitlines()[0])
        self.detail = detail
        self.until = until


class UserError(BotError):
    """That did not work. Nothing was charged."""


class InvalidOption(UserError):
    """One of the options is outside its range."""


class UnusablePicture(UserError):
    """That file can't be used as a picture. Please attach a PNG, JPEG, GIF or WebP."""


class NotAllowed(UserError):
    """You may not do that here."""


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
    """A limit of this server is reached. Please ask for less, or a moderator for more."""


class NotEnoughCredits(UserError):
    """You don't have enough credits for that."""


class QueueFull(UserError):
    """The queue is full. Please try again in a few minutes."""


class AlreadyAsked(UserError):
    """Your picture is under way already. It comes in its card by itself."""


class JobGone(UserError):
    """That picture is not kept any more. Please start again with /img2img."""


class Paused(UserError):
    """The bot is taking no new work just now. Please try again in a few minutes."""


class BackendError(BotError):
    """The picture could not be made. It cost you nothing; please try again."""


class BackendRefused(BackendError):
    """The picture service refused this. It cost you nothing; please change an option and try again."""


class BackendFailed(BackendError):
    """The picture service failed on this request. It cost you nothing; please try again."""


class BackendUnreachable(BackendFailed):
    """The picture service can't be reached just now. It cost you nothing; please try again in a minute."""


class BackendUnsure(BackendError):
    """The picture service did not answer. It cost you nothing; please try again."""


class BackendThrottled(BackendError):
    """The picture service is too busy just now. It cost you nothing; please try again in a few minutes."""


class BackendDown(BackendError):
    """The picture service can't be used just now. It cost you nothing; the operator has been told."""


class BackendOutOfCredits(BackendDown):
    """The bot's credits at the picture service are used up. You paid nothing; the operator was told."""


class OperatorError(BotError):
    """The bot can't start. Run `img2img-bot check` to see why."""
