"""Slash options: their ranges and descriptions come from `Img2ImgParams`, and wrong values get a sentence."""

from pathlib import Path
from typing import Any

import discord
import pytest

from bot.errors import InvalidOption
from bot.params import PROMPT_CHARS_MAX, SAMPLERS, Img2ImgParams
from cogs.options import CHOICES_MAX, FIELD_OF, SAMPLER_OPTION, FieldOption, help_of, params_from
from tests.support.simulated_server import open_world, said

OPTIONS = [
    {long: short for short, long in FIELD_OF.items()}.get(name, name) for name in Img2ImgParams.model_fields
]


@pytest.mark.parametrize("option", OPTIONS)
def test_every_description_fits(option: str) -> None:
    """Discord refuses a command with a description of over 100 characters."""
    assert 1 <= len(help_of(option)[option]) <= 100


def test_a_description_ends_with_the_default() -> None:
    """Members read what they get if they leave an option out; a required option has no default."""
    described = help_of("steps", "prompt")
    assert described["steps"].endswith(" Default: 20.")
    assert "Default" not in described["prompt"]


@pytest.mark.parametrize(
    ("option", "kind", "minimum", "maximum"),
    [
        ("steps", discord.AppCommandOptionType.integer, 1, 100),
        ("strength", discord.AppCommandOptionType.number, 0, 1),
        ("prompt", discord.AppCommandOptionType.string, 1, PROMPT_CHARS_MAX),
        ("negative_prompt", discord.AppCommandOptionType.string, None, PROMPT_CHARS_MAX),
    ],
)
def test_an_option_has_its_fields_type_and_bounds(
    option: str, kind: discord.AppCommandOptionType, minimum: Any, maximum: Any
) -> None:
    """Discord's own client keeps to the ranges, since the options carry them."""
    made = FieldOption(option)
    assert (made.type, made.min_value, made.max_value) == (kind, minimum, maximum)


def test_what_is_left_out_is_the_default_or_a_random_seed() -> None:
    """None means the default; two requests without a seed differ."""
    first, second = (params_from(prompt="x", steps=None, seed=None) for _ in range(2))
    assert first.num_inference_steps == 20
    assert first.seed != second.seed


def test_a_prompt_is_one_line_without_control_characters() -> None:
    """Line breaks, tabs and control characters become single spaces."""
    assert params_from(prompt="  a\tharbour\r\n at\0dawn ").prompt == "a harbour at dawn"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"steps": 101}, "Please choose a value from 1 to 100 for steps."),
        ({"guidance": 0.5}, "Please choose a value from 1 to 20 for guidance."),
        ({"strength": float("nan")}, "Please choose a value from 0 to 1 for strength."),
        ({"seed": -1}, "Please choose a value from 0 to 4,294,967,295 for seed."),
        ({"prompt": "\0 "}, "Please make prompt 1 to 1,000 characters long."),
        ({"negative_prompt": "x" * 1001}, "Please make negative_prompt 0 to 1,000 characters long."),
        ({"sampler": "oil"}, "“oil” isn't a sampler; please pick one from the list."),
        ({"scheduler": "@all\n*b*"}, "“@all \\*b\\*” isn't a scheduler; please pick one from the list."),
        ({"sampler": "x" * 5000}, f"“{'x' * 49}…” isn't a sampler; please pick one from the list."),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)  # fmt: skip
def test_a_wrong_value_is_explained(options: dict[str, Any], sentence: str) -> None:
    """The sentence names the option and what it takes; a text is repeated without acting as markup."""
    with pytest.raises(InvalidOption) as refused:
        params_from(**{"prompt": "x", **options})
    assert str(refused.value) == sentence


async def test_no_more_names_are_offered_than_discord_takes() -> None:
    """Of 27 samplers, 25 are offered before anything is typed; those that begin with it come first."""
    offered = await SAMPLER_OPTION.autocomplete(None, "")  # type: ignore[arg-type]  # no interaction is needed
    assert len(offered) == CHOICES_MAX < len(SAMPLERS)
    found = [c.value for c in await SAMPLER_OPTION.autocomplete(None, "dpm")]  # type: ignore[arg-type]  # likewise
    assert found == sorted(found, key=lambda name: not name.startswith("dpm"))


@pytest.mark.parametrize(
    ("option", "value"), [("sampler", "no_such"), ("scheduler", "no_such"), ("prompt", "   ")]
)
async def test_an_unknown_value_is_refused(tmp_path: Path, option: str, value: str) -> None:
    """Autocompletion confines nothing: what is not on the list is refused with a sentence."""
    async with open_world(tmp_path) as world:
        refused = await world.img2img(None, **{option: value})
        assert refused.ephemeral
        assert option in said(refused).content
        assert await world.available() == 40


async def test_names_are_completed(tmp_path: Path) -> None:
    """A member finds one of 27 samplers by typing a part of its name."""
    async with open_world(tmp_path) as world:
        found = await world.alice.autocomplete(world.channel, "img2img", "sampler", "dpm++ 2m")
        assert [choice["value"] for choice in found] == ["dpmpp_2m", "dpmpp_2m_sde", "dpmpp_2m_sde_gpu"]
        schedules = await world.alice.autocomplete(world.channel, "img2img", "scheduler", "")
        assert len(schedules) == 7
        assert any("changes little" in choice["name"] for choice in schedules)
