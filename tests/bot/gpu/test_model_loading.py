"""Loading the model from a folder, a file or the hub, and the errors on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

torch = pytest.importorskip("torch", reason="needs the extra [gpu]")
pytest.importorskip("diffusers", reason="needs the extra [gpu]")
from huggingface_hub.errors import (  # noqa: E402  after the skip
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from safetensors.torch import save_file  # noqa: E402  after the skip

from bot.errors import OperatorError  # noqa: E402  after the skip
from bot.gpu.model import MEMORY_MODES, MemoryMode, Model  # noqa: E402  after the skip
from bot.gpu.model_loading import _hub_sentence, device_for, from_file, load, memory_mode_for  # noqa: E402  after the skip
from bot.gpu.sd3_architecture import TINY, build  # noqa: E402  after the skip
from tests.bot.gpu import original_layout  # noqa: E402  after the skip

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the tiny model, as diffusers saves it."""
    path: Path = tmp_path_factory.mktemp("model")
    build(TINY).save_pretrained(path)
    return path


def same(one: Any, other: Any) -> bool:
    """Return whether two parts have the same weights."""
    mine, others = one.state_dict(), other.state_dict()
    return mine.keys() == others.keys() and all(mine[name].equal(others[name]) for name in mine)


def test_folder_is_loaded_as_it_is(folder: Path, model: Model) -> None:
    """A folder gives the model that was saved there; its outputs differ only by rounding (1e-5)."""
    loaded = load(str(folder), device=CPU, mode=MemoryMode(t5="on"))
    embedding = model.embed("a fox", 154)
    assert loaded.embed("a fox", 154).sequence.equal(embedding.sequence)
    x = torch.zeros(1, 16, 8, 8)
    assert (loaded.velocity(x, [0.5], [embedding]) - model.velocity(x, [0.5], [embedding])).abs().max() < 1e-5


def test_t5_is_left_on_disk_where_it_is_off(folder: Path) -> None:
    """Without T5 its gigabytes are never read."""
    assert not load(str(folder), device=CPU, mode=MemoryMode(t5="off")).has_t5


def test_single_file_is_loaded_as_published(folder: Path, tmp_path: Path) -> None:
    """One file in the makers' own layout gives the same weights, without using the network."""
    parts = build(TINY)
    for name in ("tokenizer", "tokenizer_2", "tokenizer_3"):
        (tmp_path / name).symlink_to(folder / name)
    original_layout.write(parts, tmp_path / "sd3.safetensors")
    loaded = from_file(tmp_path / "sd3.safetensors", dtype=torch.float32, t5=True, architecture=TINY)
    assert same(loaded.transformer, parts.transformer)
    assert same(loaded.vae, parts.vae)
    assert same(loaded.text_encoder_3, parts.text_encoder_3)
    assert loaded.tokenizer("a fox").input_ids == parts.tokenizer("a fox").input_ids
    small = from_file(tmp_path / "sd3.safetensors", dtype=torch.float32, t5=False, architecture=TINY)
    assert small.text_encoder_3 is None


def test_file_without_its_encoders_is_refused(tmp_path: Path) -> None:
    """A file that lacks a text encoder is refused, and the error names the file to use."""
    parts = build(TINY)
    original_layout.write(parts, tmp_path / "bare.safetensors", clip=False, t5=False)
    original_layout.write(parts, tmp_path / "clips.safetensors", t5=False)
    with pytest.raises(OperatorError, match="incl_clips"):
        load(str(tmp_path / "bare.safetensors"), device=CPU, mode=MemoryMode(t5="off"))
    with pytest.raises(OperatorError, match="t5xxl"):
        load(str(tmp_path / "clips.safetensors"), device=CPU, mode=MemoryMode(t5="on"))


def test_wrong_files_are_refused(tmp_path: Path) -> None:
    """A pickle, a damaged file and another model are refused, each in one sentence."""
    (tmp_path / "model.ckpt").write_bytes(b"pickle")
    (tmp_path / "cut.safetensors").write_bytes(b"\xff" * 100)
    save_file({"unet": torch.zeros(1)}, tmp_path / "other.safetensors")
    for name, said in (
        ("model.ckpt", "safe to open"),
        ("cut.safetensors", "damaged"),
        ("other.safetensors", "kind"),
    ):
        with pytest.raises(OperatorError, match=said):
            load(str(tmp_path / name), device=CPU, mode=MemoryMode(t5="off"))


def test_file_of_other_sizes_is_refused(tmp_path: Path, folder: Path) -> None:
    """A file whose parts have other sizes than the real model's is refused, not half loaded."""
    for name in ("tokenizer", "tokenizer_2"):
        (tmp_path / name).symlink_to(folder / name)
    original_layout.write(build(TINY), tmp_path / "sd3.safetensors")
    other = {**TINY.transformer, "pooled_projection_dim": 40}
    wrong = type(TINY)(transformer=other, vae=TINY.vae, clip_l=TINY.clip_l, clip_g=TINY.clip_g, t5=TINY.t5)
    with pytest.raises(OperatorError, match="can't be read"):
        from_file(tmp_path / "sd3.safetensors", dtype=torch.float32, t5=False, architecture=wrong)


def test_wrong_folders_are_refused(tmp_path: Path, folder: Path) -> None:
    """An empty folder, another model's and an incomplete one are refused, each in one sentence."""
    with pytest.raises(OperatorError, match=r"model_index\.json"):
        load(str(tmp_path), device=CPU, mode=MemoryMode(t5="off"))
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    with pytest.raises(OperatorError, match="another kind"):
        load(str(tmp_path), device=CPU, mode=MemoryMode(t5="off"))
    (tmp_path / "model_index.json").write_text((folder / "model_index.json").read_text())
    with pytest.raises(OperatorError, match="incomplete"):
        load(str(tmp_path), device=CPU, mode=MemoryMode(t5="off"))


def test_path_that_does_not_exist_is_refused() -> None:
    """A path that does not exist is not looked for on the hub."""
    with pytest.raises(OperatorError, match="not a folder, a file"):
        load("models/that/are/not/there", device=CPU, mode=MemoryMode(t5="off"))


@pytest.mark.parametrize(
    ("kind", "said"), [(GatedRepoError, "accept its licence"), (RepositoryNotFoundError, "no model")]
)
def test_hub_refusals_say_what_to_do(kind: Any, said: str) -> None:
    """A gated model says to accept the licence and set a token, a missing one to check the name."""
    response = httpx.Response(403, request=httpx.Request("GET", "https://hub.invalid/a/b"))
    error = OSError("no luck")
    error.__cause__ = kind("refused", response=response)
    assert said in _hub_sentence("a/b", error)


def test_unreachable_hub_says_what_to_do() -> None:
    """Without a network the sentence says to use a folder or a file."""
    assert "--model" in _hub_sentence("a/b", LocalEntryNotFoundError("offline"))


@pytest.mark.parametrize(("gb", "mode"), [(8.2, 8), (11.9, 12), (16, 12), (23.6, 24), (80, 24)])
def test_card_gets_the_largest_mode_that_it_holds(gb: float, mode: int) -> None:
    """A card gets the largest memory mode that fits."""
    assert memory_mode_for(gb) == MEMORY_MODES[mode]


def test_operator_may_choose_a_smaller_mode() -> None:
    """The operator's choice is used as long as the card can hold it."""
    assert memory_mode_for(80, asked_gb=8) == MEMORY_MODES[8]
    assert memory_mode_for(80, asked_gb=12, t5="8bit").t5 == "8bit"
    for gb, asked in ((6, None), (12, 24)):
        with pytest.raises(OperatorError, match="smaller --memory"):
            memory_mode_for(gb, asked_gb=asked)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card here")
def test_missing_card_is_reported() -> None:
    """Without a card the error says how to try the server anyway."""
    with pytest.raises(OperatorError, match="--tiny"):
        device_for("cuda")
