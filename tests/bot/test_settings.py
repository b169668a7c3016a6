"""What an operator sets."""

from pathlib import Path

import pytest

from bot.errors import OperatorError
from bot.settings import load_settings
from tests.discord.simulator import Sketcher, open_world


async def test_a_backends_own_price_is_charged(tmp_path: Path) -> None:
    """Where the operator prices a backend, its pictures cost that, the card says so before and after."""
    prices = {"painter": {"per_sample": 7, "per_megapixel_step": 0}}
    async with open_world(tmp_path, backends=[Sketcher(name="painter")], prices=prices) as world:
        await world.img2img()
        assert await world.available() == 33


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("IMG2IMG_PRICES", '{"painter": {"per_sample": -1}}'),
        ("IMG2IMG_PRICES", "{"),
        ("IMG2IMG_STEPS_MAX", "0"),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator who mistypes a setting is told which one."""
    monkeypatch.setenv(name, value)
    with pytest.raises(OperatorError, match=name.removeprefix("IMG2IMG_") + "|prices"):
        load_settings(_env_file=None)
