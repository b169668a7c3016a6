"""The same application on several cards: a Ray Serve deployment, one replica a card.

Ray is not among this project's dependencies; install `ray[serve]` beside it to use this module.
Every replica steps its own batch. All of them open one file of keys, so they must share a disk.
The queued form (v2) keeps its records in the replica that took the request: with more than one
replica, use v1, whose steps and pictures come on the very connection that asked.

Ray's own ports (dashboard, client, workers) have no passwords: keep them on a private network, and
let clients reach Serve's HTTP port alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

from bot.errors import OperatorError
from bot.gpu.start import Start, check, server_for

#: Ray lets five requests into a replica by default: no batch would ever fill.
ONGOING_MAX: Final = 128
ONGOING_AIMED_AT: Final = 8


@dataclass(frozen=True, slots=True)
class Scale:
    """How many replicas, and how many cards each has; 0 cards is for trying it on a processor."""

    replicas_min: int = 1
    replicas_max: int = 1
    cards: float = 1


def deployment(start: Start, scale: Scale | None = None) -> Any:
    """Return the Serve application for `ray.serve.run`. Raises `OperatorError` without Ray."""
    check(start)
    serve = _serve()
    scale = scale or Scale()
    configured = serve.deployment(
        name="img2img-gpu",
        max_ongoing_requests=ONGOING_MAX,
        ray_actor_options={"num_gpus": scale.cards},
        autoscaling_config={
            "min_replicas": scale.replicas_min,
            "max_replicas": scale.replicas_max,
            "target_ongoing_requests": ONGOING_AIMED_AT,
        },
    )
    # Built in the replica: a model can't travel between processes.
    return configured(serve.ingress(lambda: server_for(start).app())(_Replica)).bind()


class _Replica:
    """What Serve hangs the application on."""


def _serve() -> Any:
    try:
        return import_module("ray.serve")
    except ImportError as error:
        raise OperatorError("Ray is not installed: run `pip install 'ray[serve]'` first.") from error
