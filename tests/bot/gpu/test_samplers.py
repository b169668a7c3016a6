"""The samplers against exact solutions, published references and each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import cast

import pytest

torch = pytest.importorskip("torch", reason="needs the extra [gpu]")
from torch import Tensor  # noqa: E402  after the skip

from bot.gpu.samplers import BY_NAME, Noise, Prediction, SamplerSteps, model_calls  # noqa: E402  after the skip
from bot.gpu.schedules import sigma_at_time, sigmas_of, time_at_sigma  # noqa: E402  after the skip
from bot.params import SAMPLERS, SCHEDULERS  # noqa: E402  after the skip

torch.set_num_threads(1)
MEAN, VARIANCE = 0.6, 0.25
FRESH_NOISE = [name for name in SAMPLERS if "ancestral" in name or "sde" in name or name == "ddpm"]
Denoiser = Callable[[Tensor, float], Tensor]


def gaussian(x: Tensor, sigma: float) -> Tensor:
    """Return the exact prediction where pictures are normal with `MEAN` and `VARIANCE`."""
    alpha = 1 - sigma
    gain = alpha * VARIANCE / (alpha**2 * VARIANCE + sigma**2)
    return MEAN + gain * (x - alpha * MEAN)


def exact(z: Tensor, sigma: float) -> Tensor:
    """Return where the flow of `gaussian` has carried standard noise `z` at `sigma`."""
    alpha = 1 - sigma
    return alpha * MEAN + math.sqrt(alpha**2 * VARIANCE + sigma**2) * z


def run(name: str, x: Tensor, sigmas: Sequence[float], denoise: Denoiser = gaussian, seed: int = 0) -> Tensor:
    """Return what a sampler makes of `x`, its noise drawn from `seed`."""
    generator = torch.Generator().manual_seed(seed)
    noise: Noise = lambda: torch.randn(x.shape, generator=generator, dtype=x.dtype)  # noqa: E731  one line
    steps = BY_NAME[name](x, sigmas, noise)
    try:
        here, sigma = next(steps)
        while True:
            denoised = denoise(here, sigma)
            here, sigma = steps.send(Prediction(denoised, denoised))
    except StopIteration as end:
        return cast("Tensor", end.value)


def even(high: float, low: float, steps: int) -> list[float]:
    """Return falling sigmas at even distances."""
    return [high + (low - high) * i / steps for i in range(steps + 1)]


def error(name: str, steps: int) -> float:
    """Return how far a sampler is off the exact flow from sigma 0.9 to 0.2."""
    z = torch.linspace(-2, 2, 9, dtype=torch.float64)
    got = run(name, exact(z, 0.9), even(0.9, 0.2, steps))
    return float((got - exact(z, 0.2)).abs().max())


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_runs_on_every_schedule(sampler: str, scheduler: str) -> None:
    """Any of the 27 samplers works with any of the 7 schedulers, from 1 step to 20, faint to full."""
    for steps, strength in [(1, 0.7), (2, 1.0), (3, 0.001), (20, 0.7), (20, 1.0)]:
        sigmas = sigmas_of(scheduler=scheduler, sampler=sampler, steps=steps, strength=strength)
        z = torch.linspace(-2, 2, 16).reshape(1, 4, 2, 2)
        result = run(sampler, exact(z, sigmas[0]), sigmas)
        assert result.isfinite().all()
        assert (result - MEAN).abs().max() < 6 * math.sqrt(VARIANCE)


@pytest.mark.parametrize(
    ("sampler", "order"),
    [
        ("euler", 1),
        ("ddim", 1),
        ("euler_pp", 1),
        ("heunpp2", 1),
        ("ipndm", 2),
        ("heun", 2),
        ("dpm_2", 2),
        ("dpmpp_2m", 2),
        ("lms", 2),
        ("ipndm_v", 2),
        ("deis", 2),
        ("uni_pc", 2.7),
        ("uni_pc_bh2", 2.7),
        ("dpm_fast", 2),
    ],
)
def test_sampler_converges_at_its_order(sampler: str, order: float) -> None:
    """Twice the steps bring a picture closer by the power of two that the method promises.

    Adams methods start with one Euler step, so that their whole error falls with the square.
    """
    measured = math.log2(error(sampler, 40) / error(sampler, 80))
    assert measured > order - 0.25


@pytest.mark.parametrize(
    "sampler", ["lms", "ipndm", "ipndm_v", "deis", "uni_pc", "uni_pc_bh2", "dpmpp_2m", "heun"]
)
def test_higher_orders_beat_euler(sampler: str) -> None:
    """At 20 steps a method of higher order is at least four times as close as Euler's."""
    assert error(sampler, 20) < error("euler", 20) / 4


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_price_follows_the_calls_made(sampler: str) -> None:
    """What a picture costs is what its sampler asks of the model, within a tenth."""
    asked: list[float] = []

    def count(x: Tensor, sigma: float) -> Tensor:
        asked.append(sigma)
        return gaussian(x, sigma)

    sigmas = sigmas_of(scheduler="sgm_uniform", sampler=sampler, steps=20, strength=0.7)
    run(sampler, exact(torch.linspace(-2, 2, 16), sigmas[0]), sigmas, count)
    expected = model_calls(sampler, 20)
    assert len(asked) <= expected
    assert sampler == "dpm_adaptive" or len(asked) >= 0.9 * expected


def test_adaptive_sampler_keeps_its_tolerance() -> None:
    """`dpm_adaptive` is within its 5 % however few steps were asked for."""
    assert error("dpm_adaptive", 1) < 0.05


@pytest.mark.parametrize(
    ("sampler", "power", "time_of"),
    [("lms", 3, float), ("ipndm_v", 3, float), ("ipndm", 3, float), ("deis", 2, time_at_sigma)],
)
def test_multistep_weights_are_exact_for_polynomials(
    sampler: str, power: int, time_of: Callable[[float], float]
) -> None:
    """Once it remembers enough, a multistep method integrates its polynomials without error."""
    sigmas = even(0.9, 0.2, 12)
    if sampler != "ipndm":
        sigmas = [sigma**1.5 for sigma in sigmas]
    ends: list[float] = []

    def slope_is_a_power(x: Tensor, sigma: float) -> Tensor:
        ends.append(float(x))
        return x - sigma * time_of(sigma) ** power

    ends.append(float(run(sampler, torch.zeros((), dtype=torch.float64), sigmas, slope_is_a_power)))
    fine = even(sigmas[5], sigmas[-1], 20_000)
    middles = [(a + b) / 2 for a, b in pairwise(fine)]
    integral = sum(time_of(sigma) ** power for sigma in middles) * (fine[1] - fine[0])
    assert ends[-1] - ends[5] == pytest.approx(integral, abs=1e-8)


@pytest.mark.parametrize("sampler", FRESH_NOISE)
def test_fresh_noise_keeps_the_right_spread(sampler: str) -> None:
    """A sampler that adds noise ends with pictures of the right mean and variance.

    16,384 pictures from pure noise in 600 steps, within 2.5 % of the mean and 3 % of the variance.
    """
    z = torch.randn(16_384, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    sigmas = [*(sigma_at_time(time) for time in even(1.0, 0.005, 600)), 0.0]
    got = run(sampler, exact(z, 1.0), sigmas)
    assert float(got.mean()) == pytest.approx(MEAN, rel=0.025)
    assert float(got.var()) == pytest.approx(VARIANCE, rel=0.03)


def test_lcm_keeps_the_right_spread_of_a_consistency_model() -> None:
    """`lcm` ends with the right spread on a model that predicts the flow's end."""

    def end_of_flow(x: Tensor, sigma: float) -> Tensor:
        alpha = 1 - sigma
        spread = math.sqrt(alpha**2 * VARIANCE + sigma**2)
        return MEAN + math.sqrt(VARIANCE) * (x - alpha * MEAN) / spread

    z = torch.randn(16_384, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    got = run("lcm", exact(z, 1.0), [1.0, 0.6, 0.2, 0.0], end_of_flow)
    assert float(got.mean()) == pytest.approx(MEAN, rel=0.025)
    assert float(got.var()) == pytest.approx(VARIANCE, rel=0.03)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_known_picture_is_reached_exactly(sampler: str) -> None:
    """When the model is sure of the picture, every sampler ends on it."""
    sigmas = sigmas_of(scheduler="sgm_uniform", sampler=sampler, steps=12, strength=0.7)
    picture = torch.linspace(-1, 1, 8, dtype=torch.float64)
    x = (1 - sigmas[0]) * picture + sigmas[0] * torch.ones(8, dtype=torch.float64)
    got = run(sampler, x, sigmas, lambda _x, _sigma: picture)
    assert (got - picture).abs().max() < 1e-9


@pytest.mark.parametrize(
    ("sampler", "reference"),
    [("euler", "FlowMatchEulerDiscreteScheduler"), ("heun", "FlowMatchHeunDiscreteScheduler")],
)
def test_flow_samplers_match_diffusers(sampler: str, reference: str) -> None:
    """`euler` and `heun` take the steps that diffusers' flow schedulers take (within 1e-5)."""
    diffusers = pytest.importorskip("diffusers", reason="needs the extra [gpu]")
    scheduler = getattr(diffusers, reference)(shift=3.0)
    scheduler.set_timesteps(12)
    sigmas = [float(sigma) for sigma in dict.fromkeys(scheduler.sigmas.tolist())]
    z = torch.linspace(-2, 2, 32, dtype=torch.float32)
    x = exact(z, sigmas[0])
    for time in scheduler.timesteps:
        sigma = float(time) / 1000
        velocity = (x - gaussian(x, sigma)) / sigma
        x = scheduler.step(velocity, time, x).prev_sample
    assert (run(sampler, exact(z, sigmas[0]), sigmas) - x).abs().max() < 1e-5


def drive(steps: SamplerSteps) -> Iterator[tuple[Tensor, float]]:
    """Run a sampler to its end on `gaussian`, showing what it asks."""
    asked = next(steps, None)
    while asked is not None:
        yield asked
        denoised = gaussian(*asked)
        with suppress(StopIteration):
            asked = steps.send(Prediction(denoised, denoised))
            continue
        asked = None


def test_cfg_pp_reads_the_noise_off_the_unguided_prediction() -> None:
    """CFG++ goes to the guided picture with the noise that the unguided prediction leaves."""
    steps = BY_NAME["euler_pp"](torch.ones(1), [0.8, 0.4], lambda: torch.zeros(1))
    next(steps)
    with pytest.raises(StopIteration) as end:
        steps.send(Prediction(torch.tensor([0.5]), torch.tensor([0.25])))
    noise = (1 - 0.2 * 0.25) / 0.8
    assert float(end.value.value) == pytest.approx(0.6 * 0.5 + 0.4 * noise)


def test_brownian_noise_is_one_path() -> None:
    """`dpmpp_sde` looks ahead along the very path it then takes: two draws a step, no more."""
    draws: list[Tensor] = []

    def noise() -> Tensor:
        draws.append(torch.ones(1))
        return draws[-1]

    asked = list(drive(BY_NAME["dpmpp_sde"](torch.ones(1), [0.8, 0.4, 0.0], noise)))
    assert len(asked) == 3
    assert len(draws) == 2
