"""Settings from the environment: wrong values are named, secrets stay hidden."""

from pathlib import Path

import pytest

from bot.credits.limits import Ceilings
from bot.credits.prices import Prices
from bot.errors import OperatorError
from bot.jobs.fair_queue import QueueLimits
from bot.settings import PREFIX, Settings, bare_settings, load_settings
from tests.support.simulated_server import Sketcher, open_world

KEY = "SG_0123456789abcdef"
EXAMPLE = Path(__file__).parents[2] / ".env.example"


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
    """The operator's order of preference is kept, and spaces don't matter."""
    monkeypatch.setenv("IMG2IMG_SEGMIND_API_KEY", KEY)
    monkeypatch.setenv("IMG2IMG_BACKENDS", " segmind , painter ")
    assert load_settings().backends_in_use == ("segmind", "painter")


def test_a_wrong_value_is_named_without_being_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator sees which variable to correct; its value is not repeated."""
    monkeypatch.setenv("IMG2IMG_WAITING_MAX", "many-secret")
    with pytest.raises(OperatorError, match="IMG2IMG_WAITING_MAX") as caught:
        load_settings()
    assert "many-secret" not in str(caught.value)


def test_segmind_without_a_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend that can't work is reported at the start, not with the first picture."""
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
    """An operator with a GPU does not pay for what it can do."""
    monkeypatch.setenv("IMG2IMG_GPU_MODEL", "tiny")
    monkeypatch.setenv("IMG2IMG_SEGMIND_API_KEY", KEY)
    assert load_settings().backends_in_use == ("gpu", "segmind")


def test_a_gpu_without_model_or_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Listing the GPU without a model or an address is reported at the start."""
    monkeypatch.setenv("IMG2IMG_BACKENDS", "gpu,painter")
    with pytest.raises(OperatorError, match="IMG2IMG_GPU_MODEL"):
        load_settings()


async def test_a_backends_own_price_is_charged(tmp_path: Path) -> None:
    """If the operator sets a backend's prices, its pictures cost that."""
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
    """An operator who mistypes a setting sees which one it is."""
    monkeypatch.setenv(name, value)
    with pytest.raises(OperatorError, match=name.removeprefix("IMG2IMG_") + "|prices"):
        load_settings()


def test_an_unreadable_file_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A .env that isn't text is reported in a sentence."""
    (tmp_path / ".env").write_bytes(b"\xff\xfe\x00")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OperatorError, match=r"\.env can't be read"):
        load_settings()


def test_limits_and_prices_come_from_their_variables() -> None:
    """Prices, ceilings and queue limits are those that the operator set, each from its own variable."""
    settings = bare_settings(
        price_per_sample=2,
        price_per_step=0.5,
        price_per_megapixel=3,
        price_per_megapixel_step=0.25,
        prices={"painter": {"per_sample": 0}},
        allowance_max=11,
        grant_max=12,
        guild_daily_max=13,
        provider_daily_max=14,
        steps_max=15,
        samples_max=3,
        waiting_max=16,
        guild_waiting_max=17,
        member_waiting_max=18,
        guild_running_max=19,
        member_running_max=20,
    )
    assert settings.default_prices == Prices(2, 0.25, 0.5, 3)
    assert settings.prices_by_backend == {"painter": Prices(0, 0.25, 0.5, 3)}
    assert settings.ceilings == Ceilings(11, 12, 13, 14, 20, 18, 15, 3)
    assert settings.queue_limits == QueueLimits(19, 20, 16, 17, 18)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_the_example_describes_each_setting(name: str) -> None:
    """An operator reads the same description in .env.example as in the code."""
    lines = EXAMPLE.read_text("utf-8").splitlines()
    (at,) = [
        at for at, line in enumerate(lines) if line.removeprefix("# ").startswith(f"{PREFIX}{name.upper()}=")
    ]
    assert lines[at - 1] == f"# {Settings.model_fields[name].description}"
