"""Slash options made from `Img2ImgParams`, the one place for ranges, defaults and descriptions."""

from __future__ import annotations

import unicodedata
from typing import Any, Final

import discord
from discord import AppCommandOptionType, app_commands
from pydantic import ValidationError

from bot.errors import InvalidOption
from bot.gateway.escaping import plain
from bot.params import GENTLE_SCHEDULERS, SAMPLERS, SCHEDULERS, Img2ImgParams, random_seed

#: Options whose name on Discord is shorter than the contract's.
FIELD_OF: Final = {"steps": "num_inference_steps", "guidance": "guidance_scale"}
CHOICES_MAX: Final = 25  # Discord's limit for autocompletion
VALUE_CHARS_SHOWN: Final = 50  # of a wrong value: enough to recognise it

_FIELDS: Final[dict[str, dict[str, Any]]] = Img2ImgParams.model_json_schema()["properties"]
_TYPES: Final = {
    "integer": AppCommandOptionType.integer,
    "number": AppCommandOptionType.number,
    "string": AppCommandOptionType.string,
}


def _field(option: str) -> dict[str, Any]:
    return _FIELDS[FIELD_OF.get(option, option)]


def _bounds(option: str) -> tuple[Any, Any]:
    field = _field(option)
    return field.get("minimum", field.get("minLength")), field.get("maximum", field.get("maxLength"))


class FieldOption(app_commands.Transformer):
    """An option with the type and bounds of one field of `Img2ImgParams`."""

    def __init__(self, option: str) -> None:
        self._type = _TYPES[_field(option)["type"]]
        self._minimum, self._maximum = _bounds(option)

    @property
    def type(self) -> AppCommandOptionType:
        """The option's type on Discord."""
        return self._type

    @property
    def min_value(self) -> Any:
        """The smallest value, or the shortest length of a text."""
        return self._minimum

    @property
    def max_value(self) -> Any:
        """The largest value, or the longest length of a text."""
        return self._maximum

    async def transform(self, _interaction: discord.Interaction[Any], value: Any, /) -> Any:
        """Return the value unchanged: a client may ignore the bounds, and `Img2ImgParams` checks them."""
        return value


class NameOption(app_commands.Transformer):
    """One of a list of names, with autocompletion: the list may exceed Discord's 25 choices."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names

    async def transform(self, _interaction: discord.Interaction[Any], value: Any, /) -> str:
        """Return the name unchanged: autocompletion allows any text, and `Img2ImgParams` checks it."""
        return str(value)

    async def autocomplete(  # type: ignore[override]  # the library types the value for every kind at once
        self, _interaction: discord.Interaction[Any], value: str, /
    ) -> list[app_commands.Choice[str]]:
        """Return the names that contain what was typed, those that begin with it first."""
        # People write "dpm++ 2m" for what the contract calls "dpmpp_2m".
        typed = value.lower().replace(" ", "_").replace("+", "p")
        matches = sorted(
            (name for name in self._names if typed in name), key=lambda name: not name.startswith(typed)
        )
        return [app_commands.Choice(name=_label(name), value=name) for name in matches[:CHOICES_MAX]]


def _label(name: str) -> str:
    return f"{name} (changes little on this model)" if name in GENTLE_SCHEDULERS else name


SAMPLER_OPTION: Final = NameOption(SAMPLERS)
SCHEDULER_OPTION: Final = NameOption(SCHEDULERS)


def help_of(*options: str) -> dict[str, str]:
    """Return each option's help text, with its default where it has one."""
    return {option: _help(option) for option in options}


def _help(option: str) -> str:
    field = _field(option)
    default = f" Default: {field['default']}." if "default" in field else ""
    return f"{field['description']}{default}"


def params_from(**options: Any) -> Img2ImgParams:
    """Return the options as parameters; None means the default, or a random seed.

    Raises `InvalidOption` naming the first option that is out of its range.
    """
    given = {FIELD_OF.get(name, name): value for name, value in options.items() if value is not None}
    given.setdefault("seed", random_seed())
    given["prompt"] = " ".join(_without_controls(str(given.get("prompt", ""))).split())
    try:
        return Img2ImgParams(**given)
    except ValidationError as error:
        field = str(error.errors()[0]["loc"][0])
        option = next((name for name, long in FIELD_OF.items() if long == field), field)
        raise InvalidOption(_range_sentence(option, given.get(field))) from None


def _without_controls(text: str) -> str:
    """Return `text` with a space in place of each control character, which no model reads."""
    return "".join(" " if unicodedata.category(char) == "Cc" else char for char in text)


def _range_sentence(option: str, value: object) -> str:
    if "enum" in _field(option):
        return f"“{plain(str(value), VALUE_CHARS_SHOWN)}” isn't a {option}; please pick one from the list."
    minimum, maximum = _bounds(option)
    if _field(option)["type"] == "string":
        return f"Please make {option} {minimum or 0} to {maximum:,} characters long."
    return f"Please choose a value from {minimum:g} to {maximum:,} for {option}."
