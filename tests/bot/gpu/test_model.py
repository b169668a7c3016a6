"""The model: words, latents, small weights, and the tiny stand-in."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch", reason="needs the extra [gpu]")
pytest.importorskip("diffusers", reason="needs the extra [gpu]")
from torch import Tensor, nn  # noqa: E402  after the skip

from bot.gpu.model import FITS, EightBitLinear, Fit, Model, shrink, tiny_model  # noqa: E402  after the skip
from bot.gpu.sd3_architecture import TINY, build  # noqa: E402  after the skip


def test_tiny_model_is_tiny_and_always_the_same(tmp_path: Path) -> None:
    """The stand-in takes under a megabyte, and any two copies of it are one."""
    parts = build(TINY)
    parts.save_pretrained(tmp_path)
    assert sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file()) < 1_000_000
    again = build(TINY).transformer.state_dict()
    assert all(again[name].equal(value) for name, value in parts.transformer.state_dict().items())


def test_sequence_is_as_long_as_the_prompts_need(model: Model) -> None:
    """Short prompts take 154 tokens, long ones 333, and without T5 there are 77."""
    assert model.tokens(["a fox", "low quality"]) == 154
    assert model.tokens(["a fox", "low quality " * 20]) == 333
    assert tiny_model(t5="off").tokens(["low quality " * 20]) == 77


@pytest.mark.parametrize(("prompt", "tokens"), [("a fox", 154), ("fox " * 250, 333), ("", 154)])
def test_words_fill_the_sequence(model: Model, prompt: str, tokens: int) -> None:
    """Any prompt, empty or far too long, is read as a full sequence."""
    words = model.read(prompt, tokens)
    assert words.sequence.shape == (tokens, 32)
    assert words.pooled.shape == (24,)
    assert words.sequence.isfinite().all()


def test_without_t5_a_prompt_is_77_tokens() -> None:
    """Without T5 nothing is padded with zeros that cost time."""
    assert tiny_model(t5="off").read("a fox", 77).sequence.shape == (77, 32)


def test_latents_are_the_same_every_time(model: Model) -> None:
    """Encoding a picture twice gives one latent, so that it can be kept."""
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


def test_sketch_shows_the_colours_of_the_picture() -> None:
    """A preview has the picture's colours within four grey levels, at an eighth of its size."""
    parts = SimpleNamespace(**{**build(TINY).components, "vae": PlainVae()})
    model = Model(parts, device=torch.device("cpu"), fit=Fit(t5="on"))
    colour = torch.tensor([20, 128, 200], dtype=torch.uint8)
    sketch = model.sketch(model.encode(colour.expand(128, 64, 3)))
    assert sketch.shape == (16, 8, 3)
    assert (sketch.float() - colour).abs().max() < 4


def test_eight_bits_stay_close() -> None:
    """A layer of eight bits answers within one percent of the layer it replaces."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        linear = nn.Linear(256, 64)
        x = torch.randn(8, 256)
    small, full = EightBitLinear(linear)(x), linear(x)
    assert (small - full).norm() / full.norm() < 0.01


def test_shrinking_reaches_every_layer() -> None:
    """Every linear layer is shrunk, however deep it lies."""
    deep = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU(), nn.Linear(4, 2)))
    shrink(deep)
    assert not any(isinstance(module, nn.Linear) for module in deep.modules())


def test_t5_in_eight_bits_reads_about_the_same(model: Model) -> None:
    """T5 in eight bits gives nearly the words that the full one gives."""
    small = tiny_model(t5="8bit").read("a fox", 154).sequence
    full = model.read("a fox", 154).sequence
    assert (small - full).norm() / full.norm() < 0.05


@pytest.mark.parametrize("fit", [*FITS.values(), Fit(t5="8bit", encoders_wait=True, tiled=True)])
def test_every_fit_makes_velocities(fit: Fit) -> None:
    """Each way to lay the model onto a card runs from words to velocities and back to a picture."""
    model = Model(build(TINY, t5=fit.t5 != "off"), device=torch.device("cpu"), fit=fit)
    words = model.read("a fox", model.tokens(["a fox"]))
    latent = model.encode(torch.zeros(64, 64, 3, dtype=torch.uint8))
    assert model.velocity(latent, [0.5], [words]).isfinite().all()
    assert model.decode(latent).shape == (64, 64, 3)


def test_half_precision_runs_end_to_end() -> None:
    """In bfloat16, as on a card, words, velocities and pictures come out whole, and latents stay float32."""
    parts = build(TINY)
    for part in parts.components.values():
        if isinstance(part, nn.Module):
            part.bfloat16()
    model = Model(parts, device=torch.device("cpu"), fit=Fit(t5="8bit"))
    words = model.read("a fox", 154)
    latent = model.encode(torch.zeros(64, 64, 3, dtype=torch.uint8))
    velocity = model.velocity(latent, [0.5], [words])
    assert (words.sequence.dtype, latent.dtype, velocity.dtype) == (
        torch.bfloat16,
        torch.float32,
        torch.float32,
    )
    assert velocity.isfinite().all()
    assert model.decode(latent).shape == (64, 64, 3)


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the compiler's own
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling needs a compiler")
def test_compiled_model_answers_the_same() -> None:
    """Compiled in one piece, the blocks give the same velocities within 1e-5, for any number of rows."""
    plain, compiled = tiny_model(), tiny_model()
    compiled.compile()
    words = plain.read("a fox", 154)
    for rows in (2, 3, 5):
        x = torch.randn(rows, 16, 8, 8, generator=torch.Generator().manual_seed(rows))
        asked = x, [0.5] * rows, [words] * rows
        assert (compiled.velocity(*asked) - plain.velocity(*asked)).abs().max() < 1e-5
