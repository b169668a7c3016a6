"""From the command line's options to a running server: check, load the model, measure the card, serve."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

from bot.errors import OperatorError
from bot.gpu.batch_size import measure_cells
from bot.gpu.continuous_batch import EngineLimits
from bot.gpu.engine import Engine
from bot.gpu.listen import Address, require_keys_unless_loopback, serve
from bot.gpu.model import MEMORY_MODES, T5, Model, tiny_model
from bot.gpu.model_loading import HUB_MODEL, device_for, load, memory_gb, memory_mode_for, quiet_libraries
from bot.gpu.server import GpuServerSettings, Server

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StartOptions:
    """The options of `gpu`; `None` and empty leave the choice to the server."""

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


def check_options(options: StartOptions) -> None:
    """Raise `OperatorError` for options that can't work, before seconds are spent on anything."""
    if options.t5 is not None and options.t5 not in get_args(T5):
        raise OperatorError(f"--t5 {options.t5} is not one of: {', '.join(get_args(T5))}.")
    if options.memory_gb is not None and options.memory_gb not in MEMORY_MODES:
        raise OperatorError(
            f"--memory {options.memory_gb} is not one of: {', '.join(map(str, MEMORY_MODES))}."
        )


def load_model(options: StartOptions) -> Model:
    """Return the model that was asked for, on its device. Raises `OperatorError`."""
    t5 = cast("T5 | None", options.t5)
    if options.tiny:
        return tiny_model(t5=t5 or "on")
    device = device_for(options.device)
    mode = memory_mode_for(memory_gb(device), t5=t5, asked_gb=options.memory_gb)
    model = load(options.model or HUB_MODEL, device=device, mode=mode)
    if options.compiled:
        model.compile()
    return model


def engine_limits(model: Model) -> EngineLimits:
    """Return how much goes into one forward: measured on a card, the default elsewhere."""
    if model.device.type != "cuda":
        return EngineLimits()
    cells = measure_cells(model)
    _log.info("One forward takes up to %d rows of 1024 x 1024", cells // (128 * 128))
    return EngineLimits(cells=cells)


def public_label(options: StartOptions) -> str:
    """Return what clients may read about the model: its name, not the path that it lies under."""
    if options.tiny:
        return "tiny"
    source = options.model or HUB_MODEL
    return Path(source).name if Path(source).exists() else source


def build_server(options: StartOptions) -> Server:
    """Load the model and return the server around it. Raises `OperatorError`."""
    quiet_libraries()
    model = load_model(options)
    settings = GpuServerSettings(
        label=public_label(options),
        open_without_keys=Address(options.host, options.port).is_loopback,
        image_hosts=options.image_hosts,
    )
    return Server(Engine(model, engine_limits(model)), options.keys_path, settings)


async def start(options: StartOptions) -> None:
    """Check, load, measure and serve. Raises `OperatorError`."""
    check_options(options)
    address = Address(options.host, options.port)
    await require_keys_unless_loopback(options.keys_path, address)
    server = build_server(options)
    _log.info("Listening on http://%s:%d", address.host, address.port)
    await serve(server, address)
