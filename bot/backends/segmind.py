"""The hosted API, over HTTP: https://www.segmind.com/models/sd3-med-img2img."""

from __future__ import annotations

import random
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from bot.backends.base import Capabilities, Generation, OnProgress
from bot.backends.segmind_contract import Contract
from bot.clock import Clock
from bot.errors import BackendFailed
from bot.params import Img2ImgParams

BASE_URL: Final = "https://api.segmind.com"

#: The vendor's listed average for one picture.
TYPICAL_S: Final = 7.43

_CREDITS_PATH: Final = "/v1/get-user-credits"


class SegmindBackend:
    """Stable Diffusion 3 Medium at Segmind, which charges the operator for each picture."""

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
        """Validate the address and the key; nothing is sent yet.

        `concurrency_max` counts jobs, each of up to 4 concurrent calls. `deadline_s` applies to
        each call including all its waits. Raises `OperatorError` for an unusable key or address.
        """
        self.capabilities = Capabilities(
            label="Stable Diffusion 3 Medium (Segmind)",
            uses_model=True,
            can_cancel=False,
            concurrency_max=concurrency_max,
            typical_s=TYPICAL_S,
        )
        self._contract = Contract(
            base_url,
            api_key,
            clock=clock,
            deadline_s=deadline_s,
            connect_timeout_s=connect_timeout_s,
            jitter=jitter,
        )

    async def generate(self, params: Img2ImgParams, image: bytes, on_progress: OnProgress) -> Generation:
        """Make `params.samples` pictures from `image` (normalised JPEG bytes). Raises `BackendError`.

        Cancelling drops the calls, but the API has no cancel: it may still charge the operator.
        """
        del on_progress  # the API reports no progress
        return await self._contract.generate(params, image)

    async def check(self) -> str:
        """Return one sentence with the operator's credits, free ones included, or raise a `BackendError`."""
        return f"Segmind OK ({await self.balance():.2f} credits left)."

    async def balance(self) -> float:
        """Return the operator's credits, free ones included, or raise a `BackendError`."""
        answer = await self._contract.get(_CREDITS_PATH)
        try:
            left = _Credits.model_validate_json(answer.body)
        except ValidationError:
            raise BackendFailed(
                "Segmind's answer about credits can't be read; please try again later.",
                detail=self._contract.excerpt(answer),
            ) from None
        return left.paid + left.free

    async def aclose(self) -> None:
        """Close the connections."""
        await self._contract.aclose()


class _Credits(BaseModel):
    """`{"credits": 0.0, "free-credits": 0.018}`, as the vendor's SDK reads it."""

    model_config = ConfigDict(allow_inf_nan=False)

    paid: float = Field(alias="credits")
    free: float = Field(alias="free-credits", default=0.0)
