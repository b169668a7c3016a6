"""Settings: environment variables with the prefix `IMG2IMG_`, and a `.env` file in the working directory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from bot.credits.limits import Ceilings
from bot.credits.prices import Prices
from bot.errors import OperatorError
from bot.jobs.fair_queue import QueueLimits

BackendName = Literal["segmind", "gpu", "painter"]
PREFIX = "IMG2IMG_"


class BackendPrice(BaseModel):
    """What one backend's pictures cost, in credits; None: the same as everywhere."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    per_sample: int | None = Field(default=None, ge=0, le=1_000_000)
    per_step: float | None = Field(default=None, ge=0, le=10_000)
    per_megapixel: float | None = Field(default=None, ge=0, le=10_000)
    per_megapixel_step: float | None = Field(default=None, ge=0, le=10_000)


class Settings(BaseSettings):
    """Everything an operator can set. Credits are whole numbers; names of sizes and times end in the unit."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=".env", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    discord_token: SecretStr | None = Field(default=None, description="The bot's token from Discord.")
    segmind_api_key: SecretStr | None = Field(default=None, description="The key of Segmind's hosted API.")
    segmind_base_url: str = Field(
        default="https://api.segmind.com", pattern=r"^https?://", description="The address of the hosted API."
    )
    segmind_concurrency_max: int = Field(
        default=4, ge=1, le=64, description="The most concurrent jobs at Segmind."
    )
    gpu_url: str | None = Field(
        default=None, pattern=r"^https?://", description="The address of a GPU server that already runs."
    )
    gpu_model: str | None = Field(
        default=None,
        description="Start a GPU server with this model: a folder, a .safetensors file, a hub id, or tiny.",
    )
    gpu_device: str = Field(
        default="cuda", description="The device of the started GPU server: cuda, cuda:1, cpu."
    )
    gpu_api_key: SecretStr | None = Field(
        default=None, description="The GPU server's key, if it requires one."
    )
    gpu_concurrency_max: int = Field(
        default=8, ge=1, le=256, description="The most concurrent jobs at the GPU server."
    )
    painter_concurrency_max: int = Field(
        default=2, ge=1, le=64, description="The most concurrent jobs of the painter."
    )
    backends: Annotated[tuple[BackendName, ...], NoDecode] = Field(
        default=(),
        description="Backends (segmind, gpu, painter), comma-separated, in order of preference; by default"
        " those that are set up.",
    )
    spill_wait_s: float = Field(
        default=30,
        ge=0,
        description="Seconds that jobs wait for a busy backend before another of its kind takes them.",
    )
    data_dir: Path = Field(default=Path("data"), description="The folder for the database and the pictures.")
    retention_days: int = Field(default=30, ge=1, description="Days that pictures are kept.")

    daily_allowance: int = Field(
        default=40,
        ge=0,
        le=1_000_000,
        description="A member's free credits per UTC day, unless the server sets its own.",
    )
    price_per_sample: int = Field(default=1, ge=0, le=1_000_000, description="Credits per picture.")
    price_per_step: float = Field(
        default=0, ge=0, le=10_000, allow_inf_nan=False, description="Additional credits per step."
    )
    price_per_megapixel: float = Field(
        default=0, ge=0, le=10_000, allow_inf_nan=False, description="Additional credits per megapixel."
    )
    price_per_megapixel_step: float = Field(
        default=0.15,
        ge=0,
        le=10_000,
        allow_inf_nan=False,
        description="Additional credits per megapixel and step.",
    )
    prices: dict[BackendName, BackendPrice] = Field(
        default={},
        description='Prices of single backends, as JSON: {"painter": {"per_sample": 0, "per_step": 0.1}}.',
    )

    allowance_max: int = Field(
        default=1_000_000,
        ge=0,
        le=1_000_000,
        description="The highest daily allowance that moderators may set.",
    )
    grant_max: int = Field(
        default=1_000_000,
        ge=1,
        le=1_000_000,
        description="The most credits that moderators may grant or take at once.",
    )
    guild_daily_max: int | None = Field(
        default=None,
        ge=0,
        description="The most credits that one server may spend per UTC day; empty: no limit.",
    )
    provider_daily_max: int | None = Field(
        default=None,
        ge=0,
        description="The most credits that all servers together may spend per UTC day; empty: no limit.",
    )
    provider_low_credits: float = Field(
        default=5.0,
        ge=0,
        allow_inf_nan=False,
        description="A provider's balance, in its own credits, below which the operator is alerted once.",
    )
    steps_max: int = Field(
        default=100, ge=1, le=100, description="The most steps per picture, in every server."
    )
    samples_max: int = Field(default=4, ge=1, le=4, description="The most pictures per job, in every server.")

    waiting_max: int = Field(default=2_000, ge=1, description="The most waiting jobs in total.")
    guild_waiting_max: int = Field(default=200, ge=1, description="The most waiting jobs per server.")
    member_waiting_max: int = Field(default=5, ge=1, description="The most waiting jobs per member.")
    guild_running_max: int = Field(default=4, ge=1, description="The most running jobs per server.")
    member_running_max: int = Field(default=2, ge=1, description="The most running jobs per member.")

    decoder_children: int = Field(default=2, ge=1, le=32, description="Child processes that decode pictures.")
    shutdown_grace_s: float = Field(
        default=60, ge=0, description="Seconds that running jobs may take to finish after SIGTERM."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="The lowest level that is logged: DEBUG, INFO, WARNING or ERROR."
    )

    @field_validator("backends", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator(
        "discord_token",
        "segmind_api_key",
        "gpu_api_key",
        "gpu_url",
        "gpu_model",
        "guild_daily_max",
        "provider_daily_max",
        mode="before",
    )
    @classmethod
    def _empty_is_unset(cls, value: Any) -> Any:
        return None if isinstance(value, str) and not value.strip() else value

    @property
    def backends_in_use(self) -> tuple[BackendName, ...]:
        """The backends in order of preference: by default those set up, or else the painter."""
        if self.backends:
            return self.backends
        gpu: tuple[BackendName, ...] = ("gpu",) if self.gpu_url or self.gpu_model else ()
        segmind: tuple[BackendName, ...] = ("segmind",) if self.segmind_api_key else ()
        return gpu + segmind or ("painter",)

    @property
    def default_prices(self) -> Prices:
        """The prices of every backend that has none of its own."""
        return Prices(
            per_sample=self.price_per_sample,
            per_step=self.price_per_step,
            per_megapixel=self.price_per_megapixel,
            per_megapixel_step=self.price_per_megapixel_step,
        )

    @property
    def prices_by_backend(self) -> dict[str, Prices]:
        """The prices of the backends that have their own, by name."""
        return {
            name: replace(self.default_prices, **price.model_dump(exclude_none=True))
            for name, price in self.prices.items()
        }

    @property
    def ceilings(self) -> Ceilings:
        """What moderators can't exceed."""
        return Ceilings(
            allowance_max=self.allowance_max,
            grant_max=self.grant_max,
            guild_daily_max=self.guild_daily_max,
            provider_daily_max=self.provider_daily_max,
            running_max=self.member_running_max,
            waiting_max=self.member_waiting_max,
            steps_max=self.steps_max,
            samples_max=self.samples_max,
        )

    @property
    def queue_limits(self) -> QueueLimits:
        """How many jobs may wait and run."""
        return QueueLimits(
            guild_running_max=self.guild_running_max,
            member_running_max=self.member_running_max,
            waiting_max=self.waiting_max,
            guild_waiting_max=self.guild_waiting_max,
            member_waiting_max=self.member_waiting_max,
        )

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must never appear in a log."""
        secrets = (self.discord_token, self.segmind_api_key, self.gpu_api_key)
        return tuple(s.get_secret_value() for s in secrets if s)


def bare_settings(**given: Any) -> Settings:
    """Return the defaults with `given`, ignoring the environment and `.env`."""

    class Bare(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],  # noqa: ARG003 - the library's signature
            init_settings: PydanticBaseSettingsSource,
            *others: PydanticBaseSettingsSource,  # noqa: ARG003 - likewise
            **named: PydanticBaseSettingsSource,  # noqa: ARG003 - likewise
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (init_settings,)

    return Bare(**given)


def load_settings(**given: Any) -> Settings:
    """Return the settings: `given` takes precedence over the environment, and that over `.env`.

    Raises `OperatorError` that names each wrong variable, never its value.
    """
    try:
        settings = Settings(**given)
    except ValidationError as error:
        wrong = "; ".join(f"{_variable(e['loc'])}: {e['msg']}" for e in error.errors(include_input=False))
        raise OperatorError(f"Please correct these settings: {wrong}.") from None
    except SettingsError as error:
        raise OperatorError(f"Please correct this setting: {error}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise OperatorError(f"The file .env can't be read: {error}.") from None
    if "segmind" in settings.backends_in_use and settings.segmind_api_key is None:
        raise OperatorError(
            f"{PREFIX}SEGMIND_API_KEY is empty, but segmind is among {PREFIX}BACKENDS; set it."
        )
    if "gpu" in settings.backends_in_use and not (settings.gpu_url or settings.gpu_model):
        raise OperatorError(
            f"gpu is among {PREFIX}BACKENDS; set {PREFIX}GPU_MODEL to start a GPU server,"
            f" or {PREFIX}GPU_URL to use one that already runs."
        )
    return settings


def _variable(location: tuple[int | str, ...]) -> str:
    return PREFIX + str(location[0]).upper() if location else "settings"
