"""The hosted API, over HTTP: https://www.segmind.com/models/sd3-med-img2img."""

from __future__ import annotations

import random
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from bot.backends.base import Capabilities, Generation, OnProgress
from bot.backends.http import PaidHttp
from bot.backends.segmind_contract import Contract
from bot.clock import Clock
from bot.errors import BackendFailed
from bot.params import Img2ImgParams

BASE_URL: Final = "https://api.segmind.com"

#: The vendor's listed average for one picture.
TYPICAL_S: Final = 7.43

_CREDITS_PATH: Final = "/v1/get-user-credits"


class Segmind:
    """Stable Diffusion 3 Medium at Segmind, paid by the operator for each picture."""

    name = "segmind"

    def __init__(
        self,
        *,
        api_key: SecretStr,
        clock: Clock,
        base_url: str = BASE_URL,
        concurrency_max: int = 4,
        deadline_s: float = 120.0,
        connect_timeout_s: float = 10.0,
        jitter: random.Random | None = None,
    ) -> None:
        """Get ready to call; nothing is sent yet.

        `concurrency_max` counts jobs, each of which is up to 4 calls side by side; `deadline_s` holds
        for each call with all its waits. Raises `OperatorError` where key or address can't be right.
        """
        self.capabilities = Capabilities(
            label="Stable Diffusion 3 Medium (Segmind)",
            uses_model=True,
            reports_progress=False,
            can_cancel=False,
            concurrency_max=concurrency_max,
            typical_s=TYPICAL_S,
        )
        self._http = PaidHttp(
            base_url=base_url,
            api_key=api_key,
            clock=clock,
            jitter=jitter or random.Random(),  # noqa: S311  # spreads retries, guards nothing
            deadline_s=deadline_s,
            connect_timeout_s=connect_timeout_s,
        )
        self._contract = Contract(self._http)

    async def generate(self, params: Img2ImgParams, image: bytes, on_progress: OnProgress) -> Generation:
        """Make `params.samples` pictures from `image` (normalised JPEG bytes). Raises `BackendError`.

        Cancelling drops the calls, but the service knows no cancel: it may charge the operator for them.
        """
        del on_progress  # the service tells nothing before it is done
        return await self._contract.generate(params, image)

    async def check(self) -> str:
        """Return one sentence with the operator's credits, free ones included, or raise a `BackendError`."""
        return f"Segmind answers; {await self.balance():.2f} credits are left."

    async def balance(self) -> float:
        """Return the operator's credits, free ones included, or raise a `BackendError`."""
        answer = await self._contract.get(_CREDITS_PATH)
        try:
            left = _Credits.model_validate_json(answer.body)
        except ValidationError:
            raise BackendFailed(
                "Segmind's answer about credits can't be read; please try again later.",
                detail=self._http.detail(answer.body.decode("utf-8", "replace")),
            ) from None
        return left.paid + left.free

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()


class _Credits(BaseModel):
    """`{"credits": 0.0, "free-credits": 0.018}`, as the vendor's SDK reads it."""

    model_config = ConfigDict(allow_inf_nan=False)

    paid: float = Field(alias="credits")
    free: float = Field(alias="free-credits", default=0.0)
