"""The weights of solvers that remember earlier steps, as plain numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

#: Gauss quadrature with 8 points is exact up to degree 15; the polynomials here have degree 3 at most.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(8)
#: A step this many times as long as the last one ignores the past: see `adams_weights`.
_LOOKBACK_RATIO_MAX: Final = 4.0


@dataclass(frozen=True, slots=True)
class Series:
    """How a solver remembers: at most `order` slopes, as a polynomial in `time_of(sigma)`.

    `even` assumes that all steps are equally long, whatever they are.
    """

    order: int
    time_of: Callable[[float], float] = float
    even: bool = False


def adams_weights(past: Sequence[float], to: float, series: Series) -> list[float]:
    """Return the weight of each remembered slope in the step from `past[0]` to `to`, in sigma.

    `past` are the sigmas of the slopes, newest first. The weights integrate the polynomial through the
    slopes (Hairer, Norsett and Wanner, "Solving Ordinary Differential Equations I", III.1). A step more
    than four times as long as the last one uses only the newest slope: extrapolating so far would multiply
    rounding errors, which happens where a tiny strength makes tiny steps and one last long one.
    """
    s = past[0]
    if series.even:
        weights = _integrals([-float(i) for i in range(len(past))], 0.0, 1.0, float)
        return [weight * (to - s) for weight in weights]
    if len(past) > 1 and abs(to - s) > _LOOKBACK_RATIO_MAX * abs(past[1] - s):
        return [to - s]
    return _integrals([series.time_of(sigma) for sigma in past], s, to, series.time_of)


def _integrals(
    nodes: Sequence[float], start: float, end: float, time_of: Callable[[float], float]
) -> list[float]:
    """Integrate each Lagrange polynomial of `nodes` over sigma from `start` to `end` (Gauss, 8 points)."""
    half = (end - start) / 2
    times = [time_of(start + half * (1 + node)) for node in _NODES]
    return [
        half * sum(w * _lagrange(nodes, j, time) for w, time in zip(_WEIGHTS, times, strict=True))
        for j in range(len(nodes))
    ]


def _lagrange(nodes: Sequence[float], j: int, time: float) -> float:
    return math.prod((time - node) / (nodes[j] - node) for i, node in enumerate(nodes) if i != j)


def unipc_weights(nodes: Sequence[float], h: float, *, bh2: bool) -> list[float]:
    """Return the weight of each difference quotient in a UniPC step of length h (in log sigma).

    `nodes` are where the other predictions lie, in steps from the present one: negative for those
    remembered, 1 for the one just made at the step's end. Zhao et al. 2023 (arXiv 2302.04867),
    theorem 3.1, for data prediction; with a single node both B(h) keep the paper's 1/2.
    """
    scale = math.expm1(-h) if bh2 else -h
    if len(nodes) <= 1:
        return [-scale / 2 for _ in nodes]
    moments = _moments(h, len(nodes))
    rows = np.array([[node**k for node in nodes] for k in range(len(nodes))])
    return [float(-weight) for weight in np.linalg.solve(rows, np.array(moments))]


def _moments(h: float, count: int) -> list[float]:
    """Return `-h * k! * phi_(k+1)(-h)` for k from 1 to `count`: the theorem's right side times -B(h)."""
    phi, factorial = math.expm1(-h) / -h - 1, 1.0
    moments = []
    for k in range(1, count + 1):
        moments.append(phi * factorial)
        factorial *= k + 1
        phi = phi / -h - 1 / factorial
    return moments
