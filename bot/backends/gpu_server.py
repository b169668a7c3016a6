"""Our own GPU server as a backend: Segmind's contract, plus progress with previews, and cancel.

The server either runs already, or is a child process that starts with the bot.
"""

from __future__ import annotations

import random
from typing import Final

from pydantic import BaseModel, SecretStr, ValidationError

from bot.backends.base import Capabilities, Generation, OnProgress, Progress
from bot.backends.gpu_process import GpuProcess
from bot.backends.segmind_contract import Contract
from bot.clock import Clock
from bot.errors import BackendDown
from bot.params import Img2ImgParams

#: An estimate for a high-end card, until the bot has measured its own.
TYPICAL_S: Final = 4.0

_HEALTH_PATH: Final = "/health"


class GpuServerBackend:
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
        """Validate the address and the key; nothing is sent yet.

        `process` is the child that serves at `url`, None for a server that runs on its own.
        `deadline_s` applies to each picture. Raises `OperatorError` for an unusable key or address.
        """
        self.capabilities = Capabilities(
            label="Stable Diffusion 3 Medium",
            uses_model=True,
            can_cancel=True,
            concurrency_max=concurrency_max,
            typical_s=TYPICAL_S,
        )
        self._process = process
        self._contract = Contract(
            url,
            api_key,
            clock=clock,
            deadline_s=deadline_s,
            connect_timeout_s=connect_timeout_s,
            jitter=jitter,
        )

    async def generate(self, params: Img2ImgParams, image: bytes, on_progress: OnProgress) -> Generation:
        """Make `params.samples` pictures from `image` (normalised JPEG bytes). Raises `BackendError`.

        Cancelling closes the connection, and the server stops working on it within a step.
        """
        await self._wait_until_up()
        combined = _CombinedProgress(params.samples, on_progress)
        return await self._contract.generate(params, image, combined.step)

    async def check(self) -> str:
        """Return one sentence with the server's model, or raise a `BackendError`."""
        await self._wait_until_up()
        answer = await self._contract.get(_HEALTH_PATH)
        try:
            health = _Health.model_validate_json(answer.body)
        except ValidationError:
            raise BackendDown(detail="What answers at IMG2IMG_GPU_URL is not the GPU server.") from None
        return f"GPU server OK (model {health.model})."

    async def _wait_until_up(self) -> None:
        """Wait until the child serves. Raises `BackendDown` if it can't."""
        if self._process is not None:
            await self._process.up()

    async def aclose(self) -> None:
        """Close the connections and end the child."""
        await self._contract.aclose()
        if self._process is not None:
            await self._process.aclose()


class _Health(BaseModel):
    """The server's health report."""

    model: str


class _CombinedProgress:
    """The progress of concurrent samples as one: their mean, and the first one's preview."""

    def __init__(self, samples: int, on_progress: OnProgress) -> None:
        self._shares = [0.0] * samples
        self._on_progress = on_progress
        self._step = 0

    def step(self, index: int, progress: Progress) -> None:
        """Take one sample's progress and report the whole job's, which never goes back."""
        self._shares[index] = progress.step / progress.steps
        mean = sum(self._shares) / len(self._shares)
        self._step = max(self._step, int(mean * progress.steps + 1e-9))  # 15 / 22 * 22 falls just short of 15
        preview = progress.preview if index == 0 else None
        self._on_progress(Progress(self._step, progress.steps, preview))
