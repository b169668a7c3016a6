"""Texts that would act on Discord if they were shown as they are, and a check that nothing of them does."""

from __future__ import annotations

import re
from typing import Final

_ID: Final = "900000000000000009"

#: Short enough for every place that takes a text.
HOSTILE_TEXTS: Final = (
    f"@everyone @here <@{_ID}> <@&{_ID}>",
    f"<#{_ID}> </evil:{_ID}> <t:1:R> <:evil:{_ID}> <id:home>",
    "[evil](https://evil.example) [**EVIL**](x)",
    "https://evil.example||EVIL||**EVIL**",
    "discord.gg/evil discord.com/invite/evil",
    "**EVIL** __EVIL__ ~~EVIL~~ ||EVIL||",
    "`EVIL` ```\nEVIL\n```",
    "\n# EVIL\n-# EVIL\n> EVIL\n- EVIL",
    "\u202elive\u2066 \u200fEVIL\x00\x1b[31m",
)

#: What would act: the pieces of the texts above, unless a backslash or an invisible space comes between.
_ACTIVE: Final = re.compile(
    r"@everyone|@here|<@[!&]?9000|<#9000|</evil|<t:1:|<:evil|<id:home"
    r"|\]\(https://evil|https://evil|discord\.(?:gg|com)/(?:invite/)?evil"
    r"|\*EVIL|_EVIL|~EVIL|\|EVIL|`EVIL|```"
    r"|^\s*(?:#|-#|>|-)\s*EVIL"
    r"|[\u202e\u2066\u200f\x00\x1b]",
    re.MULTILINE,
)


def acting_in(shown: str) -> list[str]:
    """Return whatever of the hostile texts would act in a message of this content."""
    return _ACTIVE.findall(re.sub(r"\\[^A-Za-z0-9\s]", "\N{MIDDLE DOT}", shown))
