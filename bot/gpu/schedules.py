"""The seven noise schedules of the contract, by formula, for a rectified flow with shift 3.

The model was trained at a time t from 0 (picture) to 1 (noise), with the noise
share `sigma = 3t / (1 + 2t)`: Esser et al., "Scaling Rectified Flow Transformers",
2024 (arXiv 2403.03206), section 5.3.2. A schedule of n steps is ComfyUI's of June
2024 (`beta` of July): n falling sigmas and a final 0. An image-to-image request of
`steps` at `strength` takes the last `steps` of a schedule of `int(steps / strength)`.

Each schedule is written from its low end up and read lazily, so that a strength
near 0, which asks for millions of steps, costs no more than its last ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final

from bot.params import SCHEDULERS

#: The shift that Stable Diffusion 3 was trained with, at 1024 x 1024.
SHIFT: Final = 3.0
#: The model reads its time as a number from 0 to 1000.
TRAINING_STEPS: Final = 1000
#: The sigma of the first training step, `sigma_at_time(1 / 1000)`.
SIGMA_MIN: Final = SHIFT / (TRAINING_STEPS + (SHIFT - 1))
SIGMA_MAX: Final = 1.0

#: Samplers whose schedule is made one step longer and then loses its lowest step.
LOWEST_LEFT_OUT: Final = frozenset({"dpm_2", "dpm_2_ancestral", "uni_pc", "uni_pc_bh2"})

#: Above this strength ComfyUI takes the whole schedule, so that 1.0 is whole however it was rounded.
_WHOLE_STRENGTH: Final = 0.9999
#: A strength near 0 asks for endlessly many steps; up to here a float still tells neighbours apart.
_STEPS_MAX: Final = 2**52
#: Sigmas closer than this differ by little more than the rounding of float32 (6e-8).
_STEP_RATIO_MIN: Final = 1e-6
#: The rho that Karras et al. use for sampling.
_RHO: Final = 7.0
#: Both parameters of the beta distribution, as ComfyUI sets them.
_BETA: Final = 0.6
#: Terms of the continued fraction; below the middle it has converged to double precision by then.
_FRACTION_TERMS: Final = 40


def sigma_at_time(time: float) -> float:
    """Return the sigma (0 to 1) of a training time (0 to 1)."""
    return SHIFT * time / (1 + (SHIFT - 1) * time)


def time_at_sigma(sigma: float) -> float:
    """Return the training time (0 to 1) of a sigma (0 to 1): the inverse of `sigma_at_time`."""
    return sigma / (SHIFT - (SHIFT - 1) * sigma)


def _ramp(n: int, i: int, low: float, high: float) -> float:
    """Return point `i` of `n` on the straight line from `high` (point 0) to `low` (point n-1)."""
    return high if n == 1 else high + (low - high) * i / (n - 1)


def _falling(n: int) -> range:
    # The last point first: schedules are read from their low end.
    return range(n - 1, -1, -1)


def _normal(n: int) -> Iterator[float]:
    """Even steps between two sigmas that are then taken for times: ComfyUI shifts them a second time."""
    return (sigma_at_time(_ramp(n, i, SIGMA_MIN, SIGMA_MAX)) for i in _falling(n))


def _sgm_uniform(n: int) -> Iterator[float]:
    """`normal` with one more step, whose lowest sigma is left out: no tiny step before 0."""
    return (sigma_at_time(_ramp(n + 1, i, SIGMA_MIN, SIGMA_MAX)) for i in _falling(n))


def _karras(n: int) -> Iterator[float]:
    """Karras et al. 2022 (arXiv 2206.00364), equation 5, with rho 7."""
    low, high = SIGMA_MIN ** (1 / _RHO), SIGMA_MAX ** (1 / _RHO)
    return (_ramp(n, i, low, high) ** _RHO for i in _falling(n))


def _exponential(n: int) -> Iterator[float]:
    """Even steps in log sigma."""
    low, high = math.log(SIGMA_MIN), math.log(SIGMA_MAX)
    return (math.exp(_ramp(n, i, low, high)) for i in _falling(n))


def _simple(n: int) -> Iterator[float]:
    """Even steps through the training times, rounded to whole ones."""
    return (
        sigma_at_time((TRAINING_STEPS - int(i * (TRAINING_STEPS / n))) / TRAINING_STEPS) for i in _falling(n)
    )


def _ddim_uniform(n: int) -> Iterator[float]:
    """Every k-th training time; since k is whole, there may be more than n of them."""
    stride = max(TRAINING_STEPS // n, 1)
    return (sigma_at_time((index + 1) / TRAINING_STEPS) for index in range(1, TRAINING_STEPS, stride))


def _beta(n: int) -> Iterator[float]:
    """Lee et al. 2024 (arXiv 2407.12173): times at the quantiles of Beta(0.6, 0.6), repeats dropped.

    Time k is in the schedule when one of the n quantiles 1/n, 2/n, … 1 falls within half a
    time of it: so only the distribution function is needed, not its inverse.
    """
    last = TRAINING_STEPS - 1
    below = 0
    for k in range(TRAINING_STEPS):
        upto = n if k == last else math.floor(n * beta_cdf((k + 0.5) / last))
        if upto > below:
            yield sigma_at_time((k + 1) / TRAINING_STEPS)
        below = upto


def beta_cdf(x: float) -> float:
    """Return the distribution function of Beta(0.6, 0.6) at `x` (0 to 1).

    The continued fraction of the incomplete beta function (DLMF 8.17.22), which converges
    fast below the middle; above it the symmetry of the distribution is used.
    """
    if x > 1 / 2:
        return 1 - beta_cdf(1 - x)
    if x == 0:
        return 0.0
    a = b = _BETA
    log_front = a * math.log(x) + b * math.log1p(-x) + math.lgamma(a + b) - 2 * math.lgamma(a)
    fraction = 1.0
    for m in range(_FRACTION_TERMS, 0, -1):
        odd = -(a + m - 1) * (a + b + m - 1) * x / ((a + 2 * m - 2) * (a + 2 * m - 1))
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        fraction = 1 + odd / (1 + even / fraction)
    return math.exp(log_front) / (a * fraction)


_SCHEDULES: Final[dict[str, Callable[[int], Iterator[float]]]] = {
    "normal": _normal,
    "karras": _karras,
    "exponential": _exponential,
    "sgm_uniform": _sgm_uniform,
    "simple": _simple,
    "ddim_uniform": _ddim_uniform,
    "beta": _beta,
}
if set(_SCHEDULES) != set(SCHEDULERS):
    raise ImportError("bot/gpu/schedules.py and bot/params.py name different schedulers")


def sigmas_of(*, scheduler: str, sampler: str, steps: int, strength: float) -> tuple[float, ...]:
    """Return the falling sigmas of a request, the last one 0; none at all for strength 0.

    At strength 1 the whole schedule is returned: `steps` steps, but for `ddim_uniform` and
    `beta` sometimes a few more or fewer. Below, the lowest `steps` steps of the longer
    schedule. Steps so short that a solver would divide rounding errors are left out.
    """
    if strength <= 0:
        return ()
    whole = strength > _WHOLE_STRENGTH
    n = steps if whole else int(min(steps / strength, _STEPS_MAX))
    skipped = 1 if sampler in LOWEST_LEFT_OUT else 0
    rising = _SCHEDULES[scheduler](n + skipped)
    kept = islice(rising, skipped, None if whole else skipped + steps)
    return (*reversed(list(_distinct(kept))), 0.0)


def _distinct(rising: Iterator[float]) -> Iterator[float]:
    """Yield the sigmas that are further from the one before than rounding errors reach."""
    last = 0.0
    for sigma in rising:
        if sigma - last > _STEP_RATIO_MIN * sigma:
            yield sigma
            last = sigma
