"""Settings from the environment: what is wrong is named, what is secret stays so."""

from pathlib import Path

import pytest

from bot.errors import OperatorError
from bot.settings import PREFIX, Settings, bare_settings, load_settings
from tests.support.simulated_server import Sketcher, open_world

KEY = "SG_0123456789abcdef"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Start from an empty environment in a folder without .env."""
    monkeypatch.chdir(tmp_path_factory.mktemp("empty"))
    for name in Settings.model_fields:
        monkeypatch.delenv(PREFIX + name.upper(), raising=False)


def test_without_a_key_the_painter_paints() -> None:
    """An operator who sets nothing still gets pictures."""
    assert load_settings().backends_in_use == ("painter",)


def test_with_a_key_segmind_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Setting the key is all it takes to use the hosted API."""
    monkeypatch.setenv("IMG2IMG_SEGMIND_API_KEY", KEY)
    assert load_settings().backends_in_use == ("segmind",)


def test_backends_are_listed_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator's order of preference counts, blanks and all."""
    monkeypatch.setenv("IMG2IMG_SEGMIND_API_KEY", KEY)
    monkeypatch.setenv("IMG2IMG_BACKENDS", " segmind , painter ")
    assert load_settings().backends_in_use == ("segmind", "painter")


def test_a_wrong_value_is_named_without_being_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator reads which variable to mend; what was in it is not repeated."""
    monkeypatch.setenv("IMG2IMG_WAITING_MAX", "many-secret")
    with pytest.raises(OperatorError, match="IMG2IMG_WAITING_MAX") as caught:
        load_settings()
    assert "many-secret" not in str(caught.value)


def test_segmind_without_a_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend that can't work is found at the start, not with the first picture."""
    monkeypatch.setenv("IMG2IMG_BACKENDS", "segmind")
    with pytest.raises(OperatorError, match="IMG2IMG_SEGMIND_API_KEY is empty"):
        load_settings()


def test_secrets_are_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings can be logged: token and key are hidden."""
    monkeypatch.setenv("IMG2IMG_SEGMIND_API_KEY", KEY)
    settings = load_settings()
    assert KEY not in repr(settings)
    assert settings.secrets == (KEY,)


def test_an_empty_token_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line left empty in .env counts as not set."""
    monkeypatch.setenv("IMG2IMG_DISCORD_TOKEN", " ")
    assert load_settings().discord_token is None


def test_bare_settings_ignore_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo behaves the same whatever the operator has set for the real bot."""
    monkeypatch.setenv("IMG2IMG_DAILY_ALLOWANCE", "1")
    assert bare_settings().daily_allowance == 40


def test_a_gpu_that_is_set_up_is_preferred(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator with a card of his own does not pay for what it can do."""
    monkeypatch.setenv("IMG2IMG_GPU_MODEL", "tiny")
    monkeypatch.setenv("IMG2IMG_SEGMIND_API_KEY", KEY)
    assert load_settings().backends_in_use == ("gpu", "segmind")


def test_a_gpu_that_is_nowhere_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Naming the GPU without model or address is found at the start."""
    monkeypatch.setenv("IMG2IMG_BACKENDS", "gpu,painter")
    with pytest.raises(OperatorError, match="IMG2IMG_GPU_MODEL"):
        load_settings()


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
        load_settings()
