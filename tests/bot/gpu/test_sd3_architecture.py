"""The model's parts, built from configurations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the extra [gpu]")
pytest.importorskip("diffusers", reason="needs the extra [gpu]")

from bot.gpu.sd3_architecture import SD3_MEDIUM, TINY, build, write_configs  # noqa: E402  after the skip


def test_tiny_model_is_tiny_and_always_the_same(tmp_path: Path) -> None:
    """The tiny model takes under a megabyte, and any two copies of it are equal."""
    parts = build(TINY)
    parts.save_pretrained(tmp_path)
    assert sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file()) < 1_000_000
    again = build(TINY).transformer.state_dict()
    assert all(again[name].equal(value) for name, value in parts.transformer.state_dict().items())


def test_full_configurations_are_written_without_weights(tmp_path: Path) -> None:
    """The files that a single file of weights needs beside it are small and name every part."""
    write_configs(SD3_MEDIUM, tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    parts = {name for name in index if not name.startswith(("_", "tokenizer"))}
    assert parts == {folder.name for folder in tmp_path.iterdir() if folder.is_dir()}
    assert sum(file.stat().st_size for file in tmp_path.rglob("*.*")) < 100_000
