"""The model: prompts, latents, velocities and previews, in every memory mode."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch", reason="needs the extra [gpu]")
pytest.importorskip("diffusers", reason="needs the extra [gpu]")
from torch import Tensor, nn  # noqa: E402  after the skip

from bot.gpu.model import MEMORY_MODES, MemoryMode, Model, tiny_model  # noqa: E402  after the skip
from bot.gpu.sd3_architecture import TINY, build  # noqa: E402  after the skip

#: Sharing a forward changes only how a matrix product is rounded.
LATENT_OFF_MAX = 2e-4


def test_sequence_is_as_long_as_the_prompts_need(model: Model) -> None:
    """Short prompts take 154 tokens, long ones 333, and without T5 there are 77."""
    assert model.sequence_length(["a fox", "low quality"]) == 154
    assert model.sequence_length(["a fox", "low quality " * 20]) == 333
    assert tiny_model(t5="off").sequence_length(["low quality " * 20]) == 77


@pytest.mark.parametrize(("prompt", "tokens"), [("a fox", 154), ("fox " * 250, 333), ("", 154)])
def test_embedding_fills_the_sequence(model: Model, prompt: str, tokens: int) -> None:
    """Any prompt, empty or far too long, becomes a full sequence."""
    embedding = model.embed(prompt, tokens)
    assert embedding.sequence.shape == (tokens, 32)
    assert embedding.pooled.shape == (24,)
    assert embedding.sequence.isfinite().all()


def test_without_t5_a_prompt_is_77_tokens() -> None:
    """Without T5 no zeros are appended, which would only cost time."""
    assert tiny_model(t5="off").embed("a fox", 77).sequence.shape == (77, 32)


def test_latents_are_the_same_every_time(model: Model) -> None:
    """Encoding a picture twice gives the same latent, so that it can be cached."""
    picture = torch.arange(64 * 48 * 3).reshape(64, 48, 3).to(torch.uint8)
    assert model.encode(picture).equal(model.encode(picture))
    assert model.encode(picture).shape == (1, 16, 8, 6)
    assert model.decode(model.encode(picture)).shape == (64, 48, 3)


class PlainVae(nn.Module):
    """A VAE that mixes each cell's mean colour into sixteen channels: linear, as real ones nearly are."""

    config = SimpleNamespace(shift_factor=0.1, scaling_factor=1.5)
    dtype = torch.float32

    def __init__(self) -> None:
        super().__init__()
        self.mix = torch.randn(3, 16, generator=torch.Generator().manual_seed(1))

    def encode(self, pixels: Tensor) -> SimpleNamespace:
        """Return an object shaped like diffusers' answer."""
        colours = nn.functional.avg_pool2d(pixels, 8)
        latent = torch.einsum("nchw,cd->ndhw", colours, self.mix)
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: latent))


def test_preview_shows_the_colours_of_the_picture() -> None:
    """A preview has the picture's colours within four grey levels, at an eighth of its size."""
    parts = SimpleNamespace(**{**build(TINY).components, "vae": PlainVae()})
    model = Model(parts, device=torch.device("cpu"), mode=MemoryMode(t5="on"))
    colour = torch.tensor([20, 128, 200], dtype=torch.uint8)
    preview = model.preview(model.encode(colour.expand(128, 64, 3)))
    assert preview.shape == (16, 8, 3)
    assert (preview.float() - colour).abs().max() < 4


def test_t5_in_eight_bits_gives_nearly_the_same_embedding(model: Model) -> None:
    """T5 in eight bits gives an embedding within five percent of the full one's."""
    small = tiny_model(t5="8bit").embed("a fox", 154).sequence
    full = model.embed("a fox", 154).sequence
    assert (small - full).norm() / full.norm() < 0.05


@pytest.mark.parametrize(
    "mode", [*MEMORY_MODES.values(), MemoryMode(t5="8bit", offload_encoders=True, tile_vae=True)]
)
def test_every_memory_mode_makes_velocities(mode: MemoryMode) -> None:
    """Every memory mode runs from a prompt to velocities and back to a picture."""
    model = Model(build(TINY, t5=mode.t5 != "off"), device=torch.device("cpu"), mode=mode)
    embedding = model.embed("a fox", model.sequence_length(["a fox"]))
    latent = model.encode(torch.zeros(64, 64, 3, dtype=torch.uint8))
    assert model.velocity(latent, [0.5], [embedding]).isfinite().all()
    assert model.decode(latent).shape == (64, 64, 3)


def test_half_precision_runs_end_to_end() -> None:
    """In bfloat16, as on a card, velocities and pictures come out finite, and latents stay float32."""
    parts = build(TINY)
    for part in parts.components.values():
        if isinstance(part, nn.Module):
            part.bfloat16()
    model = Model(parts, device=torch.device("cpu"), mode=MemoryMode(t5="8bit"))
    embedding = model.embed("a fox", 154)
    latent = model.encode(torch.zeros(64, 64, 3, dtype=torch.uint8))
    velocity = model.velocity(latent, [0.5], [embedding])
    assert (embedding.sequence.dtype, latent.dtype, velocity.dtype) == (
        torch.bfloat16,
        torch.float32,
        torch.float32,
    )
    assert velocity.isfinite().all()
    assert model.decode(latent).shape == (64, 64, 3)


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the compiler's own
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling needs a compiler")
def test_compiled_model_gives_the_same_velocities() -> None:
    """Compiled in one piece, the blocks give the same velocities within 1e-5, for any number of rows."""
    plain, compiled = tiny_model(), tiny_model()
    compiled.compile()
    embedding = plain.embed("a fox", 154)
    for rows in (2, 3, 5):
        x = torch.randn(rows, 16, 8, 8, generator=torch.Generator().manual_seed(rows))
        asked = x, [0.5] * rows, [embedding] * rows
        assert (compiled.velocity(*asked) - plain.velocity(*asked)).abs().max() < 1e-5


def test_velocities_do_not_depend_on_the_batch(model: Model) -> None:
    """A row's velocity is the same in any batch, within 2e-4."""
    embedding = [model.embed(prompt, 154) for prompt in ("a", "b", "c", "d")]
    x = torch.randn(4, 16, 8, 8, generator=torch.Generator().manual_seed(1))
    sigmas = [0.9, 0.5, 0.3, 0.1]
    together = model.velocity(x, sigmas, embedding)
    alone = torch.cat([model.velocity(x[i : i + 1], [sigmas[i]], [embedding[i]]) for i in range(4)])
    assert (together - alone).abs().max() < LATENT_OFF_MAX
