"""From the command line's options to a running server."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

from bot.errors import OperatorError
from bot.gpu.batch_size import measured_cells
from bot.gpu.engine import Engine, Limits
from bot.gpu.listen import Address, checked_door, serve
from bot.gpu.model import FITS, T5, Model, tiny_model
from bot.gpu.model_loading import HUB_MODEL, device_for, fit_for, load, memory_gb, quiet_libraries
from bot.gpu.server import Server, Settings

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Start:
    """What the operator asked for; `None` and empty leave the choice to the server."""

    model: str
    tiny: bool
    host: str
    port: int
    memory_gb: int | None
    t5: str | None
    device: str
    compiled: bool
    image_hosts: frozenset[str]
    keys_path: Path


def check(start: Start) -> None:
    """Raise `OperatorError` for options that can't be, before seconds are spent on anything."""
    if start.t5 is not None and start.t5 not in get_args(T5):
        raise OperatorError(f"--t5 {start.t5} is not one of: {', '.join(get_args(T5))}.")
    if start.memory_gb is not None and start.memory_gb not in FITS:
        raise OperatorError(f"--memory {start.memory_gb} is not one of: {', '.join(map(str, FITS))}.")


def model_for(start: Start) -> Model:
    """Return the model that was asked for, on its device. Raises `OperatorError`."""
    t5 = cast("T5 | None", start.t5)
    if start.tiny:
        return tiny_model(t5=t5 or "on")
    device = device_for(start.device)
    fit = fit_for(memory_gb(device), t5=t5, asked_gb=start.memory_gb)
    model = load(start.model or HUB_MODEL, device=device, fit=fit)
    if start.compiled:
        model.compile()
    return model


def limits_for(model: Model) -> Limits:
    """Return how much goes into one forward: on a card as measured, elsewhere as it comes."""
    if model.device.type != "cuda":
        return Limits()
    cells = measured_cells(model)
    _log.info("one forward takes up to %d rows of 1024 x 1024", cells // (128 * 128))
    return Limits(cells=cells)


def label_of(given: Start) -> str:
    """Return what strangers may read about the model: a name, not where it lies."""
    if given.tiny:
        return "tiny"
    source = given.model or HUB_MODEL
    return Path(source).name if Path(source).exists() else source


def server_for(given: Start) -> Server:
    """Load the model and return the server around it. Raises `OperatorError`."""
    quiet_libraries()
    model = model_for(given)
    settings = Settings(
        label=label_of(given),
        open_without_keys=Address(given.host, given.port).is_loopback,
        image_hosts=given.image_hosts,
    )
    return Server(Engine(model, limits_for(model)), given.keys_path, settings)


async def start(given: Start) -> None:
    """Check, load, measure and serve. Raises `OperatorError`."""
    check(given)
    address = Address(given.host, given.port)
    await checked_door(given.keys_path, address)
    server = server_for(given)
    _log.info("listening on http://%s:%d", address.host, address.port)
    await serve(server, address)
