"""What pictures cost."""

import math

import pytest

from bot.credits.prices import Prices
from bot.params import Img2ImgParams
from bot.pictures.sizes import MEGAPIXEL
from tests.support.bank import PRICES

FREE = Prices(per_sample=0, per_megapixel_step=0)


def _params(*, samples: int = 1, steps: int = 20) -> Img2ImgParams:
    return Img2ImgParams(prompt="x", seed=0, samples=samples, num_inference_steps=steps)


@pytest.mark.parametrize(
    ("samples", "steps", "pixels", "price"),
    [
        (1, 20, MEGAPIXEL, 4),
        (4, 20, MEGAPIXEL, 16),
        (1, 100, MEGAPIXEL, 16),
        (1, 20, MEGAPIXEL // 4, 2),
        (1, 1, 16 * 16, 2),
        (2, 21, MEGAPIXEL, 10),
    ],
)
def test_prices_follow_samples_steps_and_size(samples: int, steps: int, pixels: int, price: int) -> None:
    """A member pays whole credits for each picture, more for more steps and pixels."""
    params = Img2ImgParams(prompt="x", seed=0, samples=samples, num_inference_steps=steps)
    assert PRICES.of(params, pixels) == price


def test_each_backend_can_have_its_own_prices() -> None:
    """An operator prices steps, size and samples, a backend of their own below a hosted one."""
    own = Prices(per_sample=0, per_megapixel_step=0, per_step=0.1, per_megapixel=2)
    params = Img2ImgParams(prompt="x", seed=0, samples=2, num_inference_steps=25)
    assert own.of(params, MEGAPIXEL) == 2 * math.ceil(2.5 + 2)


@pytest.mark.parametrize("steps", range(1, 101))
def test_a_price_that_comes_out_whole_is_not_rounded_up(steps: int) -> None:
    """Arithmetic with fractions costs nobody a credit more than the formula says."""
    assert Prices(per_sample=0, per_megapixel_step=0.1).of(_params(steps=steps), 10 * MEGAPIXEL) == steps
    assert Prices(per_sample=0, per_megapixel_step=0, per_step=0.1).of(_params(steps=steps), 0) == math.ceil(
        steps / 10
    )


@pytest.mark.parametrize("pixels", [1, MEGAPIXEL, 4096 * 4096])
def test_pictures_may_be_free(pixels: int) -> None:
    """With all prices at zero nothing is charged, however large the work."""
    assert FREE.of(_params(samples=4, steps=100), pixels) == 0


def test_more_of_anything_never_costs_less() -> None:
    """More samples, steps or pixels cost the same or more."""
    sizes = range(16 * 16, 2 * MEGAPIXEL, 65_537)
    prices = [PRICES.of(_params(), pixels) for pixels in sizes]
    assert prices == sorted(prices)
    by_steps = [PRICES.of(_params(steps=steps), MEGAPIXEL) for steps in range(1, 101)]
    assert by_steps == sorted(by_steps)
    assert PRICES.of(_params(samples=3), MEGAPIXEL) == 3 * PRICES.of(_params(), MEGAPIXEL)
