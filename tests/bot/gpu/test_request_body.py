"""Reading a request's body, and its price."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs the extra [gpu]")
pytest.importorskip("diffusers", reason="needs the extra [gpu]")
from hypothesis import given  # noqa: E402  after the skip
from hypothesis import strategies as st  # noqa: E402  after the skip

from bot.errors import InvalidOption  # noqa: E402  after the skip
from bot.gpu.request_body import GenerationRequest, parse  # noqa: E402  after the skip
from bot.params import Img2ImgParams  # noqa: E402  after the skip


@given(st.binary(max_size=200))
def test_no_bytes_break_the_parser(data: bytes) -> None:
    """Any bytes sent as a body are refused in one sentence, without a crash."""
    with pytest.raises(InvalidOption):
        parse(data)


@pytest.mark.parametrize(
    ("side", "steps", "samples", "sampler", "units"),
    [
        (1024, 20, 1, "dpmpp_2m", 1000),
        (1024, 20, 4, "dpmpp_2m", 4000),
        (2048, 20, 1, "dpmpp_2m", 4000),
        (1024, 40, 1, "euler", 2000),
        (1024, 20, 1, "heun", 2000),
        (1024, 1, 1, "dpm_adaptive", 1500),
        (16, 1, 1, "euler", 1),
    ],
)
def test_price_is_proportional_to_the_work(
    side: int, steps: int, samples: int, sampler: str, units: int
) -> None:
    """1024 x 1024 in 20 steps costs one credit; more work costs more, and nothing is free."""
    params = Img2ImgParams.model_validate(
        {"prompt": "x", "seed": 1, "num_inference_steps": steps, "samples": samples, "sampler": sampler}
    )
    picture = torch.zeros(side, side, 3, dtype=torch.uint8)
    assert GenerationRequest(params, picture, as_json=True).units == units
