"""One request's options, once: ranges, defaults and names.

Slash options, API bodies and the GPU server's schema are all read from
`Img2ImgParams`, so that no range is written down twice. Attributes, defaults
and ranges are those of Segmind's `sd3-med-img2img` API page; the names of
samplers and schedulers are ComfyUI's of June 2024, `beta` of three weeks later.
"""

from __future__ import annotations

import secrets
from typing import Any, Final, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field

Sampler = Literal[
    "euler",
    "euler_pp",
    "euler_ancestral",
    "euler_ancestral_pp",
    "heun",
    "heunpp2",
    "dpm_2",
    "dpm_2_ancestral",
    "lms",
    "dpm_fast",
    "dpm_adaptive",
    "dpmpp_2s_ancestral",
    "dpmpp_sde",
    "dpmpp_sde_gpu",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "dpmpp_2m_sde_gpu",
    "dpmpp_3m_sde",
    "dpmpp_3m_sde_gpu",
    "ddpm",
    "lcm",
    "ipndm",
    "ipndm_v",
    "deis",
    "ddim",
    "uni_pc",
    "uni_pc_bh2",
]
Scheduler = Literal["normal", "karras", "exponential", "sgm_uniform", "simple", "ddim_uniform", "beta"]

SAMPLERS: Final[tuple[str, ...]] = get_args(Sampler)
SCHEDULERS: Final[tuple[str, ...]] = get_args(Scheduler)

#: On a rectified-flow model these two start at so little noise (sigma 0.28 and
#: 0.18 at strength 0.7, against 0.88 for sgm_uniform) that little changes.
GENTLE_SCHEDULERS: Final[frozenset[str]] = frozenset({"karras", "exponential"})

PROMPT_CHARS_MAX: Final = 1000  # about the 256 tokens that the longest of the text encoders reads
SEED_MAX: Final = 2**32 - 1  # the seed is an unsigned 32-bit integer
DEFAULT_NEGATIVE_PROMPT: Final = "low quality,less details"


def random_seed() -> int:
    """Return a seed from 0 to `SEED_MAX`, both included, that nobody can foresee."""
    return secrets.randbelow(SEED_MAX + 1)


class Img2ImgParams(BaseModel):
    """What a member asks for, without the picture: frozen, validated, hashable."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    prompt: str = Field(
        min_length=1, max_length=PROMPT_CHARS_MAX, description="What the new picture should show."
    )
    negative_prompt: str = Field(
        default=DEFAULT_NEGATIVE_PROMPT,
        max_length=PROMPT_CHARS_MAX,
        description="What to keep out of the picture.",
    )
    num_inference_steps: int = Field(
        default=20, ge=1, le=100, description="More steps give finer results but take longer and cost more."
    )
    guidance_scale: float = Field(default=5.0, ge=1, le=20, description="How closely to follow the prompt.")
    seed: int = Field(ge=0, le=SEED_MAX, description="The same seed and options give the same picture again.")
    samples: int = Field(default=1, ge=1, le=4, description="How many pictures to make.")
    strength: float = Field(
        default=0.7, ge=0, le=1, description="How far from your picture: 0 keeps it, 1 ignores it."
    )
    sampler: Sampler = Field(default="dpmpp_2m", description="How the noise is removed, step by step.")
    scheduler: Scheduler = Field(
        default="sgm_uniform",
        description="How the noise decreases; karras and exponential change little.",
    )

    def with_seed(self, seed: int) -> Self:
        """Return the same request with another seed."""
        return self.model_copy(update={"seed": seed})

    def sample(self, index: int) -> Self:
        """Return the request for one picture of this one: one sample, its own seed.

        Sample `index` (from 0) has the seed `seed + index`, wrapping at `SEED_MAX`,
        so that any one of several can be made again alone.
        """
        return self.model_copy(update={"samples": 1, "seed": (self.seed + index) % (SEED_MAX + 1)})

    def body(self, image_base64: str) -> dict[str, Any]:
        """Return the contract's JSON body, with `image_base64` as the input picture."""
        return {**self.model_dump(), "image": image_base64, "base64": False}
