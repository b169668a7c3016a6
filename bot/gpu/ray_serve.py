"""The same application on several cards: a Ray Serve deployment, one replica a card.

Ray comes with the extra `[ray]`. Every replica steps its own batch. All of them open one file of
keys, so they must share a disk. The queued form (v2) keeps its requests in the replica that took
them: with more than one replica use v1, whose steps and pictures come on the connection that asked.

Ray's own ports (dashboard, client, workers) have no passwords: keep them on a private network, and
let clients reach Serve's HTTP port alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

from bot.errors import OperatorError
from bot.gpu.start import StartOptions, build_server, check_options

#: Ray sends five requests to a replica by default, too few to fill a batch; the engine has its own queue.
ONGOING_MAX: Final = 128
#: More requests a replica than this on average, and Ray starts another one.
ONGOING_TARGET: Final = 8


@dataclass(frozen=True, slots=True)
class Scale:
    """How many replicas, and how many cards each has; 0 cards is for a trial on a processor."""

    replicas_min: int = 1
    replicas_max: int = 1
    cards: float = 1


def deployment(options: StartOptions, scale: Scale | None = None) -> Any:
    """Return the Serve application for `ray.serve.run`. Raises `OperatorError` without Ray."""
    check_options(options)
    serve = _serve()
    scale = scale or Scale()
    configured = serve.deployment(
        name="img2img-gpu",
        max_ongoing_requests=ONGOING_MAX,
        ray_actor_options={"num_gpus": scale.cards},
        autoscaling_config={
            "min_replicas": scale.replicas_min,
            "max_replicas": scale.replicas_max,
            "target_ongoing_requests": ONGOING_TARGET,
        },
    )
    # Built inside the replica: a loaded model can't be sent to another process.
    return configured(serve.ingress(lambda: build_server(options).app())(_Replica)).bind()


class _Replica:
    """The class that Serve wants around an application; it adds nothing."""


def _serve() -> Any:
    try:
        return import_module("ray.serve")
    except ImportError as error:
        raise OperatorError("Ray is not installed: run `pip install 'img2img-bot[ray]'` first.") from error
