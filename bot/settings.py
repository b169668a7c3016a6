"""Settings: environment variables with the prefix `IMG2IMG_`, and a `.env` file beside them."""

from __future__ import annotations

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

from bot.errors import OperatorError

BackendName = Literal["segmind", "gpu", "painter"]
PREFIX = "IMG2IMG_"


class BackendPrice(BaseModel):
    """What one backend's pictures cost, where it differs from the prices for all; in credits."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    per_sample: int | None = Field(default=None, ge=0, le=1_000_000)
    per_step: float | None = Field(default=None, ge=0, le=10_000)
    per_megapixel: float | None = Field(default=None, ge=0, le=10_000)
    per_megapixel_step: float | None = Field(default=None, ge=0, le=10_000)


class Settings(BaseSettings):
    """Everything an operator may set. Credits are whole; sizes and times carry their unit in the name."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=".env", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    discord_token: SecretStr | None = Field(default=None, description="The bot's token from Discord.")
    segmind_api_key: SecretStr | None = Field(default=None, description="The key of Segmind's hosted API.")
    segmind_base_url: str = Field(
        default="https://api.segmind.com", pattern=r"^https?://", description="Where the hosted API is."
    )
    segmind_concurrency_max: int = Field(default=4, ge=1, le=64, description="Jobs at Segmind at once.")
    gpu_url: str | None = Field(
        default=None, pattern=r"^https?://", description="Where a GPU server of yours runs already."
    )
    gpu_model: str | None = Field(
        default=None,
        description="Start a GPU server with this model: a folder, a .safetensors file, a hub id, or tiny.",
    )
    gpu_device: str = Field(
        default="cuda", description="The card of the started GPU server: cuda, cuda:1, cpu."
    )
    gpu_api_key: SecretStr | None = Field(
        default=None, description="The key of the GPU server, if it has keys."
    )
    gpu_concurrency_max: int = Field(default=8, ge=1, le=256, description="Jobs at the GPU server at once.")
    painter_concurrency_max: int = Field(default=2, ge=1, le=64, description="Jobs painted at once.")
    backends: Annotated[tuple[BackendName, ...], NoDecode] = Field(
        default=(),
        description="Backends in order of preference, with commas; by default those that are set up.",
    )
    spill_wait_s: float = Field(
        default=30,
        ge=0,
        description="Seconds that jobs wait for a busy backend before the next of its kind helps out.",
    )
    data_dir: Path = Field(default=Path("data"), description="Where database and pictures are kept.")
    retention_days: int = Field(default=30, ge=1, description="How long pictures are kept.")

    daily_allowance: int = Field(
        default=40,
        ge=0,
        le=1_000_000,
        description="A member's free credits a UTC day, where a server sets none.",
    )
    price_per_sample: int = Field(default=1, ge=0, le=1_000_000, description="Credits for each picture.")
    price_per_step: float = Field(
        default=0, ge=0, le=10_000, allow_inf_nan=False, description="Credits for each step, on top."
    )
    price_per_megapixel: float = Field(
        default=0, ge=0, le=10_000, allow_inf_nan=False, description="Credits for each megapixel, on top."
    )
    price_per_megapixel_step: float = Field(
        default=0.15,
        ge=0,
        le=10_000,
        allow_inf_nan=False,
        description="Credits for each step of a megapixel, on top.",
    )
    prices: dict[BackendName, BackendPrice] = Field(
        default={},
        description='Single backends\' own prices, as JSON: {"painter": {"per_sample": 0, "per_step": 0.1}}.',
    )

    allowance_max: int = Field(
        default=1_000_000, ge=0, le=1_000_000, description="The highest daily allowance moderators may give."
    )
    grant_max: int = Field(
        default=1_000_000, ge=1, le=1_000_000, description="The most credits moderators may move in one act."
    )
    guild_daily_max: int | None = Field(
        default=None, ge=0, description="The most credits that one server may spend a UTC day; empty: no cap."
    )
    provider_daily_max: int | None = Field(
        default=None,
        ge=0,
        description="The most credits that all servers together may spend a UTC day; empty: no cap.",
    )
    provider_low_credits: float = Field(
        default=5.0,
        ge=0,
        allow_inf_nan=False,
        description="Below this balance at a provider (its own credits) the operator is alerted, once.",
    )
    steps_max: int = Field(default=100, ge=1, le=100, description="The most steps of a picture, anywhere.")
    samples_max: int = Field(default=4, ge=1, le=4, description="The most pictures of a job, anywhere.")

    waiting_max: int = Field(default=2_000, ge=1, description="Jobs that may wait in all.")
    guild_waiting_max: int = Field(default=200, ge=1, description="Jobs that may wait in one server.")
    member_waiting_max: int = Field(default=5, ge=1, description="Jobs that one member may have waiting.")
    guild_running_max: int = Field(default=4, ge=1, description="Jobs that may run at once in one server.")
    member_running_max: int = Field(default=2, ge=1, description="Jobs that one member may have running.")

    decoder_children: int = Field(default=2, ge=1, le=32, description="Processes that decode pictures.")
    shutdown_grace_s: float = Field(
        default=60, ge=0, description="How long running jobs may finish on SIGTERM."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="What is logged."
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
        """The backends in order of preference, the default filled in: what is set up, else painter."""
        if self.backends:
            return self.backends
        gpu: tuple[BackendName, ...] = ("gpu",) if self.gpu_url or self.gpu_model else ()
        segmind: tuple[BackendName, ...] = ("segmind",) if self.segmind_api_key else ()
        return gpu + segmind or ("painter",)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must never be seen in a log."""
        secrets = (self.discord_token, self.segmind_api_key, self.gpu_api_key)
        return tuple(s.get_secret_value() for s in secrets if s)


def bare_settings(**given: Any) -> Settings:
    """Return settings of `given` and the defaults alone, whatever is in the environment and `.env`."""

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
    """Return the settings, `given` ones first, then the environment, then `.env`.

    Raises `OperatorError` naming each variable that is wrong, never its value.
    """
    try:
        settings = Settings(**given)
    except ValidationError as error:
        wrong = "; ".join(f"{_variable(e['loc'])}: {e['msg']}" for e in error.errors(include_input=False))
        raise OperatorError(f"These settings are wrong, please mend them: {wrong}.") from None
    except SettingsError as error:
        raise OperatorError(f"A setting can't be read, please mend it: {error}.") from None
    if "segmind" in settings.backends_in_use and settings.segmind_api_key is None:
        raise OperatorError(
            f"{PREFIX}SEGMIND_API_KEY is empty, but segmind is among {PREFIX}BACKENDS; set it."
        )
    if "gpu" in settings.backends_in_use and not (settings.gpu_url or settings.gpu_model):
        raise OperatorError(
            f"gpu is among {PREFIX}BACKENDS; set {PREFIX}GPU_MODEL to start a server,"
            f" or {PREFIX}GPU_URL to use one that runs."
        )
    return settings


def _variable(location: tuple[int | str, ...]) -> str:
    return PREFIX + str(location[0]).upper() if location else "settings"
