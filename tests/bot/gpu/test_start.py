"""From options to a model and its label."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the extra [gpu]")
pytest.importorskip("diffusers", reason="needs the extra [gpu]")
pytest.importorskip("uvicorn", reason="needs the extra [gpu]")

from bot.errors import OperatorError
from bot.gpu.continuous_batch import EngineLimits
from bot.gpu.model import Model
from bot.gpu.model_loading import HUB_MODEL
from bot.gpu.start import StartOptions, check_options, engine_limits, load_model, public_label

OPTIONS = StartOptions(
    model="",
    tiny=False,
    host="127.0.0.1",
    port=0,
    memory_gb=None,
    t5=None,
    device="cpu",
    compiled=False,
    image_hosts=frozenset(),
    keys_path=Path("keys.sqlite"),
)


def test_wrong_options_are_refused_before_anything_is_loaded() -> None:
    """A T5 mode or a memory size that does not exist is named in the error."""
    check_options(OPTIONS)
    check_options(replace(OPTIONS, t5="8bit", memory_gb=12))
    with pytest.raises(OperatorError, match="--t5 maybe"):
        check_options(replace(OPTIONS, t5="maybe"))
    with pytest.raises(OperatorError, match="--memory 9"):
        check_options(replace(OPTIONS, memory_gb=9))


def test_label_does_not_reveal_paths(tmp_path: Path) -> None:
    """Clients see the name of a folder or file, never where it lies; a name on the hub is public anyway."""
    (tmp_path / "sd3").mkdir()
    assert public_label(replace(OPTIONS, model=str(tmp_path / "sd3"))) == "sd3"
    assert public_label(OPTIONS) == HUB_MODEL
    assert public_label(replace(OPTIONS, model="maker/model")) == "maker/model"
    assert public_label(replace(OPTIONS, tiny=True)) == "tiny"


def test_tiny_model_may_be_without_t5() -> None:
    """The tiny model follows `--t5` as the real one does."""
    assert load_model(replace(OPTIONS, tiny=True)).has_t5
    assert not load_model(replace(OPTIONS, tiny=True, t5="off")).has_t5


def test_processor_is_not_measured(model: Model) -> None:
    """Without a card the default limits are used."""
    assert engine_limits(model) == EngineLimits()
