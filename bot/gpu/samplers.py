"""The 27 samplers of the contract, as generators that ask for predictions and are sent them.

A sampler yields `(x, sigma)` and is sent back a `Prediction`; what it returns is x at the last
sigma. So one engine can step many of them in one forward, and none depends on the others.

Everywhere `x = (1 - sigma) * picture + sigma * noise`, a rectified flow, with `alpha = 1 - sigma`.
Its ODE is `dx/dsigma = (x - denoised) / sigma`, which is that of Karras et al. 2022
(arXiv 2206.00364) exactly: solvers written for it need no change. Samplers that add fresh noise do
need one, since here the picture's share grows as the noise falls. Names of the symbols:
`s` is the sigma that a step starts from, `t` the one it goes to, `d` the derivative, `h` a step.

"Half log-SNR" is `log(alpha / sigma)`, minus infinity in pure noise. A first step out of pure
noise is therefore always first order in the samplers that measure steps by it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from itertools import pairwise
from typing import Final, NamedTuple, TypeAlias

import torch
from torch import Tensor

from bot.gpu.multistep import Series, adams_weights, unipc_weights
from bot.gpu.schedules import time_at_sigma
from bot.params import SAMPLERS


class Prediction(NamedTuple):
    """What the model predicts as the picture behind x: with guidance, and without any."""

    denoised: Tensor
    unguided: Tensor


Noise: TypeAlias = Callable[[], Tensor]
SamplerSteps: TypeAlias = Generator[tuple[Tensor, float], Prediction, Tensor]
Sampler: TypeAlias = Callable[[Tensor, Sequence[float], Noise], SamplerSteps]

#: Samplers that need `Prediction.unguided`, also where the guidance scale is 1.
NEED_UNGUIDED: Final = frozenset({"euler_pp", "euler_ancestral_pp"})

#: Model calls a step of the samplers that make more than one; the price counts calls.
_CALLS_PER_STEP: Final = {
    "heun": 2,
    "heunpp2": 3,
    "dpm_2": 2,
    "dpm_2_ancestral": 2,
    "dpmpp_2s_ancestral": 2,
    "dpmpp_sde": 2,
    "dpmpp_sde_gpu": 2,
}
#: `dpm_adaptive` picks its own steps: about this many calls, whatever number is asked for.
_ADAPTIVE_CALLS: Final = 30
#: Bounds the calls of a picture on which the error never becomes small enough.
_ADAPTIVE_TRIES_MAX: Final = 40
#: k-diffusion's defaults: first step in log sigma, acceptance threshold, and the rest that counts as done.
_ADAPTIVE_FIRST_STEP: Final = 0.05
_ADAPTIVE_ACCEPTED: Final = 0.81
_ADAPTIVE_REST: Final = 1e-5
#: The error allowed, relative and absolute: k-diffusion's defaults as well.
_ADAPTIVE_RELATIVE_ERROR: Final = 0.05
_ADAPTIVE_ABSOLUTE_ERROR: Final = 0.0078


def model_calls(sampler: str, steps: int) -> int:
    """Return about how many times a sampler calls the model in `steps` steps: what a picture costs."""
    return _ADAPTIVE_CALLS if sampler == "dpm_adaptive" else steps * _CALLS_PER_STEP.get(sampler, 1)


def _slope(x: Tensor, sigma: float, denoised: Tensor) -> Tensor:
    return (x - denoised) / sigma


def _toward(x: Tensor, denoised: Tensor, s: float, t: float) -> Tensor:
    """Return x moved from s to t on the straight line to `denoised`: an exact step if it is constant."""
    return denoised + (x - denoised) * (t / s)


def _half_log_snr(sigma: float) -> float:
    if sigma <= 0:
        return math.inf
    return math.log((1 - sigma) / sigma) if sigma < 1 else -math.inf


def _sigma_at(half_log_snr: float) -> float:
    return 1 / (1 + math.exp(half_log_snr))


def _ancestral_sigma(s: float, t: float) -> float:
    """Return the sigma below t to go to so that fresh noise can lift x back to t: `t * t / s`."""
    return t * t / s


def _add_noise(x: Tensor, down: float, t: float, noise: Noise) -> Tensor:
    """Return x lifted from sigma `down` to sigma `t` by fresh noise.

    The flow's forward step: scale by the ratio of alphas, add the variance that is missing.
    """
    if t <= 0:
        return x
    ratio = (1 - t) / (1 - down)
    # The difference can round to just below 0.
    return ratio * x + math.sqrt(max(t * t - (ratio * down) ** 2, 0.0)) * noise()


def euler(x: Tensor, sigmas: Sequence[float], _: Noise) -> SamplerSteps:
    """Euler's method on the flow: Karras et al. 2022, algorithm 2 without churn. `ddim` is the same here.

    DDIM (Song et al. 2020, arXiv 2010.02502, eta 0) goes to `alpha_t * denoised + t * noise` with the
    noise read off x: on a rectified flow that is Euler's step, term by term.
    """
    for s, t in pairwise(sigmas):
        denoised = (yield x, s).denoised
        x = _toward(x, denoised, s, t)
    return x


def euler_ancestral(x: Tensor, sigmas: Sequence[float], noise: Noise) -> SamplerSteps:
    """Euler to a lower sigma, then fresh noise: k-diffusion's ancestral step in the flow's own scales."""
    for s, t in pairwise(sigmas):
        denoised = (yield x, s).denoised
        x = _add_noise(_toward(x, denoised, s, _ancestral_sigma(s, t)), _ancestral_sigma(s, t), t, noise)
    return x


def _cfg_pp_step(x: Tensor, prediction: Prediction, s: float, t: float) -> Tensor:
    noise = (x - (1 - s) * prediction.unguided) / s
    return (1 - t) * prediction.denoised + t * noise


def euler_pp(x: Tensor, sigmas: Sequence[float], _: Noise) -> SamplerSteps:
    """CFG++ (Chung et al. 2024, arXiv 2406.08070, algorithm 2): noise is read off the unguided prediction."""
    for s, t in pairwise(sigmas):
        prediction = yield x, s
        x = _cfg_pp_step(x, prediction, s, t)
    return x


def euler_ancestral_pp(x: Tensor, sigmas: Sequence[float], noise: Noise) -> SamplerSteps:
    """CFG++ to a lower sigma, then fresh noise, as `euler_ancestral` does it."""
    for s, t in pairwise(sigmas):
        prediction = yield x, s
        x = _add_noise(
            _cfg_pp_step(x, prediction, s, _ancestral_sigma(s, t)), _ancestral_sigma(s, t), t, noise
        )
    return x


def heun(x: Tensor, sigmas: Sequence[float], _: Noise) -> SamplerSteps:
    """Heun's method: Karras et al. 2022, algorithm 1; Euler for the step to 0. Two calls a step."""
    for s, t in pairwise(sigmas):
        d = _slope(x, s, (yield x, s).denoised)
        ahead = x + d * (t - s)
        if t > 0:
            d = (d + _slope(ahead, t, (yield ahead, t).denoised)) / 2
        x = x + d * (t - s)
    return x


def heunpp2(x: Tensor, sigmas: Sequence[float], _: Noise) -> SamplerSteps:
    """Heun with up to two looks ahead, weighted by their sigmas: "Heun++" of the web user interfaces.

    A slope seen ahead counts `its sigma / ((looks + 1) * first sigma)`, the present one the rest.
    No paper gives the weights; they make it first order, smoother than Euler where sigma is high.
    """
    for i, (s, t) in enumerate(pairwise(sigmas)):
        first = mean = d = _slope(x, s, (yield x, s).denoised)
        looks = [sigma for sigma in sigmas[i + 1 : i + 3] if sigma > 0]
        ahead, here = x, s
        for sigma in looks:
            ahead, here = ahead + d * (sigma - here), sigma
            d = _slope(ahead, sigma, (yield ahead, sigma).denoised)
            mean = mean + (d - first) * (sigma / ((len(looks) + 1) * sigmas[0]))
        x = x + mean * (t - s)
    return x


def _midpoint(x: Tensor, d: Tensor, s: float, t: float) -> SamplerSteps:
    """Go from s to t > 0 on the slope at their geometric mean: DPM-Solver-2 with r = 1/2."""
    m = math.sqrt(s * t)
    middle = x + d * (m - s)
    return x + _slope(middle, m, (yield middle, m).denoised) * (t - s)


def dpm_2(x: Tensor, sigmas: Sequence[float], _: Noise) -> SamplerSteps:
    """DPM-Solver-2 (Lu et al. 2022, arXiv 2206.00927, algorithm 1), Euler to 0. Two calls a step."""
    for s, t in pairwise(sigmas):
        denoised = (yield x, s).denoised
        if t > 0:
            x = yield from _midpoint(x, _slope(x, s, denoised), s, t)
        else:
            x = _toward(x, denoised, s, t)
    return x


def dpm_2_ancestral(x: Tensor, sigmas: Sequence[float], noise: Noise) -> SamplerSteps:
    """DPM-Solver-2 to a lower sigma, then fresh noise. Two calls a step."""
    for s, t in pairwise(sigmas):
        denoised = (yield x, s).denoised
        if t > 0:
            x = yield from _midpoint(x, _slope(x, s, denoised), s, _ancestral_sigma(s, t))
        else:
            x = _toward(x, denoised, s, t)
        x = _add_noise(x, _ancestral_sigma(s, t), t, noise)
    return x


def dpmpp_2s_ancestral(x: Tensor, sigmas: Sequence[float], noise: Noise) -> SamplerSteps:
    """DPM-Solver++(2S) (Lu et al. 2022, arXiv 2211.01095, algorithm 1) to a lower sigma, then fresh noise."""
    for s, t in pairwise(sigmas):
        denoised = (yield x, s).denoised
        if t > 0:
            m = math.sqrt(s * _ancestral_sigma(s, t))
            denoised = (yield _toward(x, denoised, s, m), m).denoised
        x = _add_noise(_toward(x, denoised, s, _ancestral_sigma(s, t)), _ancestral_sigma(s, t), t, noise)
    return x


def _adams(x: Tensor, sigmas: Sequence[float], series: Series) -> SamplerSteps:
    past: list[tuple[float, Tensor]] = []
    for s, t in pairwise(sigmas):
        past = [(s, _slope(x, s, (yield x, s).denoised)), *past][: series.order]
        weights = adams_weights([sigma for sigma, _ in past], t, series)
        for weight, (_, d) in zip(weights, past, strict=False):
            x = x + d * weight
    return x


def lms(x: Tensor, sigmas: Sequence[float], _: Noise) -> SamplerSteps:
    """Linear multistep of order 4 on uneven steps: Adams and Bashforth's, with exact integrals.

    `ipndm_v` is the same arithmetic: PNDM's weights (Liu et al. 2022, arXiv 2202.09778) made for uneven
    steps by Zhang and Chen 2022 are Adams and Bashforth's.
    """
    return _adams(x, sigmas, Series(order=4))


def ipndm(x: Tensor, sigmas: Sequence[float], _: Noise) -> SamplerSteps:
    """Improved PNDM (Zhang and Chen 2022, arXiv 2204.13902): the weights of even steps on every schedule."""
    return _adams(x, sigmas, Series(order=4, even=True))


def deis(x: Tensor, sigmas: Sequence[float], _: Noise) -> SamplerSteps:
    """DEIS tAB (Zhang and Chen 2022, arXiv 2204.13902) of order 3: slopes as polynomials in time."""
    return _adams(x, sigmas, Series(order=3, time_of=time_at_sigma))


def _dpm_solver_3(
    x: Tensor, d: Tensor, s: float, t: float
) -> Generator[tuple[Tensor, float], Prediction, tuple[Tensor, Tensor]]:
    """Take one step of DPM-Solver-3; return it at second order (the DPM-Solver-2 inside it) and at third."""
    h = math.log(s / t)
    m1, m2 = s * math.exp(-h / 3), s * math.exp(-2 * h / 3)
    at_1 = x + d * (m1 - s)
    d1 = _slope(at_1, m1, (yield at_1, m1).denoised) - d
    at_2 = x + d * (m2 - s) - d1 * (2 * m2 * (math.expm1(2 * h / 3) / (2 * h / 3) - 1))
    d2 = _slope(at_2, m2, (yield at_2, m2).denoised) - d
    straight = x + d * (t - s)
    return straight + d1 * (1.5 * (t - s)), straight - d2 * (1.5 * t * (math.expm1(h) / h - 1))


def _orders(calls: int) -> list[int]:
    """Share `calls` among steps of order 3, with lower ones last: Lu et al. 2022, section 3.4."""
    if calls % 3:
        return [3] * (calls // 3) + [calls % 3]
    return [3] * (calls // 3 - 1) + [2, 1] if calls else []


def _fast_sigmas(high: float, low: float, steps: int) -> list[float]:
    return [high * (low / high) ** (i / steps) for i in range(steps + 1)]


def _step_of_order(order: int, x: Tensor, d: Tensor, s: float, t: float) -> SamplerSteps:
    match order:
        case 1:
            return x + d * (t - s)
        case 2:
            return (yield from _midpoint(x, d, s, t))
        case _:
            return (yield from _dpm_solver_3(x, d, s, t))[1]


def dpm_fast(x: Tensor, sigmas: Sequence[float], noise: Noise) -> SamplerSteps:
    """DPM-Solver-fast (Lu et al. 2022, arXiv 2206.00927, section 3.4): one call for each step asked for.

    It keeps only the ends of the schedule, and steps evenly in log sigma between them; the
    last call takes the lowest sigma to 0, where the schedule ends there.
    """
    ends = _ends(sigmas)
    orders = _orders(len(sigmas) - (2 if sigmas[-1] == 0 else 1))
    for order, (s, t) in zip(orders, pairwise(_fast_sigmas(*ends, max(len(orders), 1))), strict=False):
        d = _slope(x, s, (yield x, s).denoised)
        x = yield from _step_of_order(order, x, d, s, t)
    return (yield from euler(x, [ends[1], sigmas[-1]], noise)) if sigmas[-1] == 0 else x


def _ends(sigmas: Sequence[float]) -> tuple[float, float]:
    return sigmas[0], sigmas[-2] if sigmas[-1] == 0 else sigmas[-1]


def dpm_adaptive(x: Tensor, sigmas: Sequence[float], noise: Noise) -> SamplerSteps:
    """DPM-Solver-23, each step as long as its error allows (Lu et al. 2022, arXiv 2206.00927, appendix C).

    Order 3 with the order 2 inside it, three calls a try; tolerances and first step are k-diffusion's.
    It keeps only the ends of the schedule. After 40 tries it takes the rest in one step.
    """
    s, low = _ends(sigmas)
    before, h, tries = x, _ADAPTIVE_FIRST_STEP, 0
    while math.log(s / low) > _ADAPTIVE_REST:
        tries += 1
        t = low if tries > _ADAPTIVE_TRIES_MAX else max(low, s * math.exp(-h))
        d = _slope(x, s, (yield x, s).denoised)
        second, third = yield from _dpm_solver_3(x, d, s, t)
        factor = _tolerance_ratio(second, third, before) ** (1 / 3)
        if factor >= _ADAPTIVE_ACCEPTED or tries > _ADAPTIVE_TRIES_MAX:
            x, before, s = third, second, t
        h *= 1 + math.atan(factor - 1)
    return (yield from euler(x, [low, sigmas[-1]], noise)) if sigmas[-1] == 0 else x


def _tolerance_ratio(second: Tensor, third: Tensor, before: Tensor) -> float:
    """Return how many times the error, the difference between two orders, fits into what is tolerated."""
    tolerated = (_ADAPTIVE_RELATIVE_ERROR * torch.maximum(second.abs(), before.abs())).clamp_min(
        _ADAPTIVE_ABSOLUTE_ERROR
    )
    # The small number keeps the ratio finite where both orders agree exactly.
    return 1 / (float(((second - third) / tolerated).square().mean().sqrt()) + 1e-8)


def dpmpp_2m(x: Tensor, sigmas: Sequence[float], _: Noise) -> SamplerSteps:
    """DPM-Solver++(2M) (Lu et al. 2022, arXiv 2211.01095, algorithm 2), steps measured in log sigma."""
    old: Tensor | None = None
    h_old = 0.0
    for s, t in pairwise(sigmas):
        denoised = (yield x, s).denoised
        h = math.log(s / t) if t > 0 else math.inf
        target = denoised
        if old is not None and t > 0:
            target = denoised + (denoised - old) * (h / (2 * h_old))
        x = _toward(x, target, s, t)
        old, h_old = denoised, h
    return x


def _sde_step(x: Tensor, target: Tensor, s: float, t: float, z: Tensor | None) -> Tensor:
    """Take one step of the diffusion SDE, exact if `target` is constant; z is normal noise, None for t = 0.

    SDE-DPM-Solver++(1), Lu et al. 2022 (arXiv 2211.01095, equation 18), with this flow's alpha and sigma.
    """
    if z is None:
        return target
    kept = (1 - s) * t / ((1 - t) * s)
    added = 1 - kept**2
    return x * (kept * t / s) + target * ((1 - t) * added) + z * (t * math.sqrt(added))


def _noise_unless_last(t: float, noise: Noise) -> Tensor | None:
    return noise() if t > 0 else None


def ddpm(x: Tensor, sigmas: Sequence[float], noise: Noise) -> SamplerSteps:
    """DDPM's posterior (Ho et al. 2020, arXiv 2006.11239, equation 7) between any two sigmas of the flow."""
    for s, t in pairwise(sigmas):
        denoised = (yield x, s).denoised
        x = _sde_step(x, denoised, s, t, _noise_unless_last(t, noise))
    return x


def lcm(x: Tensor, sigmas: Sequence[float], noise: Noise) -> SamplerSteps:
    """Latent consistency sampling (Luo et al. 2023, arXiv 2310.04378, algorithm 3): predict, add noise."""
    for s, t in pairwise(sigmas):
        x = (yield x, s).denoised
        if t > 0:
            x = (1 - t) * x + t * noise()
    return x


def dpmpp_sde(x: Tensor, sigmas: Sequence[float], noise: Noise) -> SamplerSteps:
    """DPM-Solver++(2S) for the SDE, as k-diffusion has it: one look halfway. Two calls a step.

    Halfway is in half log-SNR. The look's noise is the first part of the whole step's: one Brownian
    path in sigma, seen twice.
    """
    for s, t in pairwise(sigmas):
        denoised = (yield x, s).denoised
        if t <= 0 or s >= 1:
            x = _sde_step(x, denoised, s, t, _noise_unless_last(t, noise))
            continue
        m = _sigma_at((_half_log_snr(s) + _half_log_snr(t)) / 2)
        early, late = noise(), noise()
        share = (s - m) / (s - t)
        denoised = (yield _sde_step(x, denoised, s, m, early), m).denoised
        x = _sde_step(x, denoised, s, t, early * math.sqrt(share) + late * math.sqrt(1 - share))
    return x


def dpmpp_2m_sde(x: Tensor, sigmas: Sequence[float], noise: Noise) -> SamplerSteps:
    """SDE-DPM-Solver++(2M), midpoint (Lu et al. 2022, arXiv 2211.01095, equation 19)."""
    old: Tensor | None = None
    h_old = 0.0
    for s, t in pairwise(sigmas):
        denoised = (yield x, s).denoised
        h = _half_log_snr(t) - _half_log_snr(s)
        target = denoised
        if old is not None and t > 0:
            target = denoised + (denoised - old) * (h / (2 * h_old))
        x = _sde_step(x, target, s, t, _noise_unless_last(t, noise))
        old, h_old = (denoised, h) if s < 1 else (None, 0.0)
    return x


def dpmpp_3m_sde(x: Tensor, sigmas: Sequence[float], noise: Noise) -> SamplerSteps:
    """The SDE solver of order 3 as k-diffusion has it: the prediction as a quadratic in half log-SNR."""
    past: list[tuple[float, Tensor]] = []
    for s, t in pairwise(sigmas):
        denoised = (yield x, s).denoised
        at_s, at_t = _half_log_snr(s), _half_log_snr(t)
        past = [(at_s, denoised), *past][:3] if s < 1 else []
        target = denoised
        if t > 0 and past:
            target = _quadratic(past, at_t - at_s)
        x = _sde_step(x, target, s, t, _noise_unless_last(t, noise))
    return x


def _quadratic(past: Sequence[tuple[float, Tensor]], h: float) -> Tensor:
    """Return the constant that has the effect over a step h of the polynomial through `past`.

    Divided differences of the predictions (newest first), weighted by the integrals phi_2 and phi_3 of an
    SDE step with eta 1, over the integral of a constant. A step over twice as long as the last one
    uses only the newest prediction: so far ahead the others add more error than they remove.
    """
    (now, denoised), *older = past
    constant = -math.expm1(-2 * h)
    phi_2 = 1 - constant / (2 * h)
    if not older or h > 2 * (now - older[0][0]):
        return denoised
    first = (denoised - older[0][1]) * (h / (now - older[0][0]))
    if len(older) == 1:
        return denoised + first * (phi_2 / constant)
    r_0, r_1 = (now - older[0][0]) / h, (older[0][0] - older[1][0]) / h
    second = (first - (older[0][1] - older[1][1]) / r_1) / (r_0 + r_1)
    phi_3 = phi_2 / (2 * h) - 1 / 2
    return denoised + ((first + second * r_0) * phi_2 - second * phi_3) / constant


def _unipc(x: Tensor, sigmas: Sequence[float], *, bh2: bool) -> SamplerSteps:
    past: list[tuple[float, Tensor]] = []
    before, order = x, 0
    for i, (s, t) in enumerate(pairwise(sigmas)):
        denoised = (yield x, s).denoised
        if past:
            x = _unipc_step(before, past[:order], s, bh2=bh2, arrived=denoised)
        past = [(s, denoised), *past][:3]
        # The last steps before 0 lower the order: `lower_order_final` in the paper's own code.
        left = len(sigmas) - 1 - i if sigmas[-1] == 0 else 3
        before, order = x, min(len(past), left)
        x = _unipc_step(before, past[:order], t, bh2=bh2, arrived=None)
    return x


def _unipc_step(
    x: Tensor, past: Sequence[tuple[float, Tensor]], t: float, *, bh2: bool, arrived: Tensor | None
) -> Tensor:
    """Move x to t by the predictions in `past`, newest first.

    With `arrived`, the prediction made at t, the step is made once more and better: the corrector.
    """
    s, now = past[0]
    target = _toward(x, now, s, t)
    if t <= 0:
        return target
    h = math.log(s / t)
    nodes = [math.log(s / sigma) / h for sigma, _ in past[1:]]
    slopes = [(denoised - now) / node for (_, denoised), node in zip(past[1:], nodes, strict=True)]
    if arrived is not None:
        nodes, slopes = [*nodes, 1.0], [*slopes, arrived - now]
    for weight, slope in zip(unipc_weights(nodes, h, bh2=bh2), slopes, strict=True):
        target = target + slope * weight
    return target


def uni_pc(x: Tensor, sigmas: Sequence[float], _: Noise) -> SamplerSteps:
    """UniPC of order 3 with B1(h) = h (Zhao et al. 2023, arXiv 2302.04867, algorithms 5 and 6)."""
    return _unipc(x, sigmas, bh2=False)


def uni_pc_bh2(x: Tensor, sigmas: Sequence[float], _: Noise) -> SamplerSteps:
    """UniPC of order 3 with B2(h) = exp(h) - 1 (Zhao et al. 2023, arXiv 2302.04867)."""
    return _unipc(x, sigmas, bh2=True)


#: By the contract's names. In ComfyUI `…_gpu` draws its noise on the card; here all noise comes from the
#: request's own generator in main memory, so that both make the same picture on every card.
BY_NAME: Final[dict[str, Sampler]] = {
    "euler": euler,
    "euler_pp": euler_pp,
    "euler_ancestral": euler_ancestral,
    "euler_ancestral_pp": euler_ancestral_pp,
    "heun": heun,
    "heunpp2": heunpp2,
    "dpm_2": dpm_2,
    "dpm_2_ancestral": dpm_2_ancestral,
    "lms": lms,
    "dpm_fast": dpm_fast,
    "dpm_adaptive": dpm_adaptive,
    "dpmpp_2s_ancestral": dpmpp_2s_ancestral,
    "dpmpp_sde": dpmpp_sde,
    "dpmpp_sde_gpu": dpmpp_sde,
    "dpmpp_2m": dpmpp_2m,
    "dpmpp_2m_sde": dpmpp_2m_sde,
    "dpmpp_2m_sde_gpu": dpmpp_2m_sde,
    "dpmpp_3m_sde": dpmpp_3m_sde,
    "dpmpp_3m_sde_gpu": dpmpp_3m_sde,
    "ddpm": ddpm,
    "lcm": lcm,
    "ipndm": ipndm,
    "ipndm_v": lms,
    "deis": deis,
    "ddim": euler,
    "uni_pc": uni_pc,
    "uni_pc_bh2": uni_pc_bh2,
}
if set(BY_NAME) != set(SAMPLERS):
    raise ImportError("bot/gpu/samplers.py and bot/params.py name different samplers")
