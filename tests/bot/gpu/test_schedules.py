"""The schedules against the closed formulas, computed here the long way round."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.gpu.schedules import SIGMA_MIN, beta_cdf, sigma_at_time, sigmas_of, time_at_sigma
from bot.params import SAMPLERS, SCHEDULERS

TABLE = [3 * (k / 1000) / (1 + 2 * (k / 1000)) for k in range(1, 1001)]


def _line(high: float, low: float, n: int) -> list[float]:
    return [high + (low - high) * i / max(n - 1, 1) for i in range(n)]


def _simple(n: int) -> list[float]:
    return [TABLE[-(1 + int(i * (1000 / n)))] for i in range(n)]


def _ddim(n: int) -> list[float]:
    return TABLE[1 :: max(1000 // n, 1)][::-1]


def _quantile(p: float) -> float:
    """Return the Beta(0.6, 0.6) quantile of `p` by bisection."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if beta_cdf(middle) < p else (low, middle)
    return high


def _beta(n: int) -> list[float]:
    places = [round(_quantile(1 - i / n) * 999) for i in range(n)]
    return [TABLE[place] for place in dict.fromkeys(places)]


def _shifted_twice(places: list[float]) -> list[float]:
    return [3 * place / (1 + 2 * place) for place in places]


LONG_WAY = {
    "normal": lambda n: _shifted_twice(_line(1.0, TABLE[0], n)),
    "sgm_uniform": lambda n: _shifted_twice(_line(1.0, TABLE[0], n + 1)[:-1]),
    "karras": lambda n: [root**7 for root in _line(1.0, TABLE[0] ** (1 / 7), n)],
    "exponential": lambda n: [math.exp(power) for power in _line(0.0, math.log(TABLE[0]), n)],
    "simple": _simple,
    "ddim_uniform": _ddim,
    "beta": _beta,
}


@pytest.mark.parametrize("n", [1, 2, 7, 20, 28, 100])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_whole_schedule_follows_its_formula(scheduler: str, n: int) -> None:
    """A whole schedule is the published one, to the last digits."""
    got = sigmas_of(scheduler=scheduler, sampler="euler", steps=n, strength=1.0)
    assert got == pytest.approx([*LONG_WAY[scheduler](n), 0.0], rel=1e-9)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_strength_keeps_the_last_steps_of_a_longer_schedule(scheduler: str) -> None:
    """At strength 0.7 twenty steps are the last twenty of twenty-eight."""
    got = sigmas_of(scheduler=scheduler, sampler="euler", steps=20, strength=0.7)
    assert got == pytest.approx([*LONG_WAY[scheduler](28), 0.0][-21:], rel=1e-9)


@pytest.mark.parametrize("sampler", ["dpm_2", "dpm_2_ancestral", "uni_pc", "uni_pc_bh2"])
def test_some_samplers_leave_the_lowest_step_out(sampler: str) -> None:
    """Four samplers take a schedule one longer, without its lowest sigma."""
    got = sigmas_of(scheduler="simple", sampler=sampler, steps=20, strength=0.7)
    longer = [*LONG_WAY["simple"](29), 0.0]
    assert got == pytest.approx([*longer[:-2], 0.0][-21:], rel=1e-9)


def test_default_request_starts_where_the_design_says() -> None:
    """The default request starts from 88 % noise, karras from 28 % and exponential from 18 %."""
    starts = [
        sigmas_of(scheduler=name, sampler="dpmpp_2m", steps=20, strength=0.7)[0]
        for name in ("sgm_uniform", "karras", "exponential")
    ]
    assert starts == pytest.approx([0.88, 0.28, 0.18], abs=0.01)


def test_strength_0_has_no_steps() -> None:
    """At strength 0 there is nothing to do."""
    assert sigmas_of(scheduler="beta", sampler="euler", steps=20, strength=0.0) == ()


@given(
    scheduler=st.sampled_from(SCHEDULERS),
    sampler=st.sampled_from(SAMPLERS),
    steps=st.integers(1, 100),
    strength=st.floats(0, 1, exclude_min=True),
)
def test_every_request_has_a_falling_schedule(
    scheduler: str, sampler: str, steps: int, strength: float
) -> None:
    """Whatever is asked for, the sigmas fall from at most 1 to 0, one at least, without a repeat."""
    sigmas = sigmas_of(scheduler=scheduler, sampler=sampler, steps=steps, strength=strength)
    assert sigmas[0] <= 1
    assert sigmas[-1] == 0
    assert 2 <= len(sigmas) <= 2 * steps + 2
    assert all(high > low for high, low in pairwise(sigmas))


def test_beta_distribution_matches_its_density() -> None:
    """The beta schedule's distribution function is the integral of its density."""
    bits = 20_000
    angles = [(i + 0.5) / bits * math.pi / 2 for i in range(bits)]
    heights = [(math.sin(angle) * math.cos(angle)) ** 0.2 for angle in angles]
    for share in (0.01, 0.3, 0.5, 0.9):
        count = round(share * bits)
        x = math.sin(count / bits * math.pi / 2) ** 2
        assert beta_cdf(x) == pytest.approx(sum(heights[:count]) / sum(heights), abs=2e-4)


@given(st.floats(0, 1))
def test_shift_can_be_undone(time: float) -> None:
    """Sigma and training time are two names of one thing."""
    assert time_at_sigma(sigma_at_time(time)) == pytest.approx(time, abs=1e-12)


def test_lowest_sigma_is_the_models() -> None:
    """The lowest sigma is that of the first of a thousand training times."""
    assert pytest.approx(TABLE[0]) == SIGMA_MIN
