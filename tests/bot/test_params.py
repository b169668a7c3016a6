"""The request's options: one place for ranges, defaults and names."""

import pytest
from pydantic import ValidationError

from bot.params import SAMPLERS, SCHEDULERS, SEED_MAX, Img2ImgParams, random_seed


def test_the_defaults_are_the_contracts() -> None:
    """A member who sets nothing gets what the API's page documents."""
    params = Img2ImgParams(prompt="x", seed=698845)
    assert params.body("abc") == {
        "prompt": "x",
        "negative_prompt": "low quality,less details",
        "image": "abc",
        "num_inference_steps": 20,
        "guidance_scale": 5.0,
        "seed": 698845,
        "samples": 1,
        "strength": 0.7,
        "sampler": "dpmpp_2m",
        "scheduler": "sgm_uniform",
        "base64": False,
    }


def test_there_are_27_samplers_and_7_schedulers() -> None:
    """Every name of the contract can be chosen, none twice."""
    assert (len(set(SAMPLERS)), len(set(SCHEDULERS))) == (27, 7)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", ""),
        ("prompt", "x" * 1001),
        ("num_inference_steps", 0),
        ("num_inference_steps", 101),
        ("guidance_scale", 0.9),
        ("guidance_scale", float("nan")),
        ("guidance_scale", float("inf")),
        ("strength", -0.1),
        ("strength", 1.1),
        ("strength", 1e308),
        ("seed", -1),
        ("seed", SEED_MAX + 1),
        ("samples", 0),
        ("samples", 5),
        ("sampler", "euler; drop table"),
        ("scheduler", ""),
        ("surprise", 1),
    ],
)
def test_what_is_out_of_range_is_refused(field: str, value: object) -> None:
    """Nothing outside the documented ranges goes any further."""
    with pytest.raises(ValidationError):
        Img2ImgParams.model_validate({"prompt": "x", "seed": 0, field: value})


def test_each_sample_has_its_own_seed() -> None:
    """Any one of several pictures can be made again alone; seeds wrap at their bound."""
    params = Img2ImgParams(prompt="x", seed=SEED_MAX, samples=4)
    assert [params.sample(n).seed for n in range(4)] == [SEED_MAX, 0, 1, 2]
    assert params.sample(2).samples == 1


def test_random_seeds_are_in_range() -> None:
    """A seed nobody chose is one that anyone could choose."""
    assert all(0 <= random_seed() <= SEED_MAX for _ in range(100))
