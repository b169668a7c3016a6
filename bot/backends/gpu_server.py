"""Our own GPU server as a backend: the hosted contract, plus progress with previews and cancel.

The server is one that runs already, or a child process that starts with the bot.
"""

from __future__ import annotations

import random
from typing import Final

from pydantic import BaseModel, SecretStr, ValidationError

from bot.backends.base import Capabilities, Generation, OnProgress, Progress
from bot.backends.gpu_process import GpuProcess
from bot.backends.http import PaidHttp
from bot.backends.segmind_contract import Contract
from bot.clock import Clock
from bot.errors import BackendDown
from bot.params import Img2ImgParams

#: A first guess for a card of the upper class; the bot measures its own.
TYPICAL_S: Final = 4.0

_HEALTH_PATH: Final = "/health"


class Gpu:
    """Stable Diffusion 3 Medium on the operator's own card."""

    name = "gpu"

    def __init__(
        self,
        *,
        url: str,
        clock: Clock,
        api_key: SecretStr | None = None,
        process: GpuProcess | None = None,
        concurrency_max: int = 8,
        deadline_s: float = 600.0,
        connect_timeout_s: float = 5.0,
        jitter: random.Random | None = None,
    ) -> None:
        """Get ready to call the server at `url`; `process` is the child that serves there, if it is ours.

        `deadline_s` holds for each picture. Raises `OperatorError` where key or address can't be right.
        """
        self.capabilities = Capabilities(
            label="Stable Diffusion 3 Medium",
            uses_model=True,
            reports_progress=True,
            can_cancel=True,
            concurrency_max=concurrency_max,
            typical_s=TYPICAL_S,
        )
        self._process = process
        self._http = PaidHttp(
            base_url=url,
            api_key=api_key,
            clock=clock,
            jitter=jitter or random.Random(),  # noqa: S311 - spreads retries, guards nothing
            deadline_s=deadline_s,
            connect_timeout_s=connect_timeout_s,
        )
        self._contract = Contract(self._http)

    async def generate(self, params: Img2ImgParams, image: bytes, on_progress: OnProgress) -> Generation:
        """Make `params.samples` pictures from `image` (normalised JPEG bytes). Raises `BackendError`.

        Cancelling hangs up, and the server stops that work within a step.
        """
        await self._up()
        together = _Together(params.samples, on_progress)
        return await self._contract.generate(params, image, together.step)

    async def check(self) -> str:
        """Return one sentence with the server's model, or raise a `BackendError`."""
        await self._up()
        answer = await self._contract.get(_HEALTH_PATH)
        try:
            health = _Health.model_validate_json(answer.body)
        except ValidationError:
            raise BackendDown(detail="What answers at IMG2IMG_GPU_URL is not the GPU server.") from None
        return f"The GPU server answers, with the model {health.model}."

    async def _up(self) -> None:
        """Wait until the child serves. Raises `BackendDown` if it can't."""
        if self._process is not None:
            await self._process.up()

    async def aclose(self) -> None:
        """Close the connections, and end the child."""
        await self._http.aclose()
        if self._process is not None:
            await self._process.aclose()


class _Health(BaseModel):
    """What the server tells of itself."""

    model: str


class _Together:
    """The progress of several pictures made side by side as one: their mean, and the first one's preview."""

    def __init__(self, samples: int, on_progress: OnProgress) -> None:
        self._shares = [0.0] * samples
        self._on_progress = on_progress
        self._step = 0

    def step(self, index: int, progress: Progress) -> None:
        """Hear of one picture's step; tell the whole's, which never goes back."""
        self._shares[index] = progress.step / progress.steps
        mean = sum(self._shares) / len(self._shares)
        self._step = max(self._step, int(mean * progress.steps + 1e-9))
        preview = progress.preview if index == 0 else None
        self._on_progress(Progress(self._step, progress.steps, preview))
