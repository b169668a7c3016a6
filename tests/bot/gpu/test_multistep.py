"""The weights of multistep solvers, against integrals that are known."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("numpy", reason="needs the extra [gpu]")

from bot.gpu.multistep import Series, adams_weights, unipc_weights

CUBIC = Series(order=4)


def test_one_slope_is_an_euler_step() -> None:
    """With a single slope to remember, the step is Euler's."""
    assert adams_weights([0.8], 0.6, CUBIC) == pytest.approx([-0.2])


@pytest.mark.parametrize("power", range(4))
def test_uneven_steps_integrate_cubics_exactly(power: int) -> None:
    """Four slopes on uneven steps integrate any polynomial up to degree 3."""
    past, to = [0.5, 0.62, 0.7, 0.9], 0.4
    weights = adams_weights(past, to, CUBIC)
    step = sum(weight * sigma**power for weight, sigma in zip(weights, past, strict=True))
    assert step == pytest.approx((to ** (power + 1) - past[0] ** (power + 1)) / (power + 1))


def test_even_steps_have_the_published_weights() -> None:
    """On even steps the weights are those of Adams and Bashforth: 55, -59, 37, -9 over 24."""
    weights = adams_weights([0.9, 0.8, 0.5, 0.1], 1.9, Series(order=4, even=True))
    assert weights == pytest.approx([55 / 24, -59 / 24, 37 / 24, -9 / 24])


def test_long_step_ignores_the_past() -> None:
    """A step over four times as long as the last one uses only the newest slope."""
    assert len(adams_weights([0.5, 0.51], 0.461, CUBIC)) == 2
    assert adams_weights([0.5, 0.51], 0.45, CUBIC) == pytest.approx([-0.05])


@pytest.mark.parametrize("bh2", [False, True])
def test_unipc_weights_solve_their_equations(bh2: bool) -> None:
    """The weights of two nodes meet both moment conditions of the paper, whichever B(h) it is."""
    h, nodes = 0.3, [-1.2, 1.0]
    weights = unipc_weights(nodes, h, bh2=bh2)
    phi_2 = (math.expm1(-h) / -h - 1) / -h
    phi_3 = (phi_2 - 1 / 2) / -h
    for power, moment in enumerate([h * phi_2, 2 * h * phi_3]):
        total = sum(weight * node**power for weight, node in zip(weights, nodes, strict=True))
        assert total == pytest.approx(moment)
