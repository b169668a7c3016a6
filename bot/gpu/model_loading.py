"""Loads the model from a folder, a single file or the Hugging Face hub, and fits it to the card's memory."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open

from bot.errors import OperatorError
from bot.gpu.model import MEMORY_MODES, T5, MemoryMode, Model
from bot.gpu.sd3_architecture import SD3_MEDIUM, Architecture, diffusers, transformers, write_configs

#: The model as its makers publish it, in diffusers' layout. It is gated: an access token is needed.
HUB_MODEL: Final = "stabilityai/stable-diffusion-3-medium-diffusers"
#: The vocabularies that a single file lacks; neither is gated.
CLIP_VOCABULARY: Final = "openai/clip-vit-large-patch14"
T5_VOCABULARY: Final = "google/t5-v1_1-xxl"

#: Weights whose names tell what a single file holds.
_TRANSFORMER_MARK: Final = "model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight"
_CLIP_MARK: Final = "text_encoders.clip_l.transformer.text_model.embeddings.position_embedding.weight"
_T5_MARK: Final = "text_encoders.t5xxl.transformer.shared.weight"
_GIGABYTE: Final = 1_000_000_000
#: A card sold as 24 GB reports a little less, so this share of a mode's memory is enough for it.
_MEMORY_SHARE_MIN: Final = 0.95


def device_for(name: str) -> torch.device:
    """Return the device called `name`. Raises `OperatorError` if there is no card."""
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise OperatorError(
            "No CUDA card was found: check the driver and torch, or try the server without one with --tiny.",
            detail=f"torch {torch.__version__}",
        )
    return device


def memory_gb(device: torch.device) -> float:
    """Return a card's memory in gigabytes; for a processor, what the largest mode needs."""
    if device.type != "cuda":
        return float(max(MEMORY_MODES))
    return float(torch.cuda.mem_get_info(device)[1]) / _GIGABYTE


def memory_mode_for(gb: float, *, t5: T5 | None = None, asked_gb: int | None = None) -> MemoryMode:
    """Return the memory mode for a card of `gb` gigabytes: the largest that it can hold.

    `asked_gb` (8, 12 or 24) chooses a mode even if the card has more memory; `t5` overrides the mode's own.
    Raises `OperatorError` if the card is too small for any mode, or for the one asked for.
    """
    possible = [size for size in MEMORY_MODES if size * _MEMORY_SHARE_MIN <= gb]
    if not possible or (asked_gb is not None and asked_gb not in possible):
        least = asked_gb or min(MEMORY_MODES)
        raise OperatorError(
            f"The card has {gb:.1f} GB of memory but this needs {least} GB: choose a smaller --memory."
        )
    mode = MEMORY_MODES[asked_gb or max(possible)]
    return mode if t5 is None else replace(mode, t5=t5)


def load(source: str, *, device: torch.device, mode: MemoryMode) -> Model:
    """Return the model behind `source`: a folder, a `.safetensors` file, or a name on the hub.

    Raises an `OperatorError` that says what to do.
    """
    path = Path(source).expanduser()
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    if path.is_file():
        parts = from_file(path, dtype=dtype, t5=mode.t5 != "off")
    elif path.is_dir():
        parts = from_folder(path, dtype=dtype, t5=mode.t5 != "off")
    else:
        parts = from_hub(source, dtype=dtype, t5=mode.t5 != "off")
    try:
        return Model(parts, device=device, mode=mode)
    except torch.OutOfMemoryError as error:
        raise OperatorError(
            "The card ran out of memory while loading the model: free some, or choose a smaller --memory.",
            detail=str(error),
        ) from error


def quiet_libraries() -> None:
    """Keep the libraries' progress bars and advice off the operator's screen."""
    for library in (transformers, diffusers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()


def _without(t5: bool) -> dict[str, None]:
    return {} if t5 else {"text_encoder_3": None, "tokenizer_3": None}


def from_folder(path: Path, *, dtype: torch.dtype, t5: bool) -> Any:
    """Return the parts in a folder of diffusers' layout, without using the network."""
    if not (path / "model_index.json").is_file():
        raise OperatorError(
            f"There is no model in {path}: the folder needs the model_index.json that diffusers writes."
        )
    if "StableDiffusion3" not in (path / "model_index.json").read_text(encoding="utf-8"):
        raise OperatorError(f"{path} is another kind of model; this server runs Stable Diffusion 3 Medium.")
    try:
        return diffusers.StableDiffusion3Pipeline.from_pretrained(
            path, local_files_only=True, dtype=dtype, **_without(t5)
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise OperatorError(
            f"The model in {path} is incomplete or damaged: download it again.", detail=str(error)
        ) from error


def from_hub(name: str, *, dtype: torch.dtype, t5: bool) -> Any:
    """Return the parts published on the hub under `name`; its client downloads them once and caches them."""
    if name.count("/") != 1 or name.endswith(".safetensors"):
        raise OperatorError(f"{name!r} is not a folder, a file or a name on the hub: check --model.")
    try:
        return diffusers.StableDiffusion3Pipeline.from_pretrained(name, dtype=dtype, **_without(t5))
    except (OSError, ValueError) as error:
        raise OperatorError(_hub_sentence(name, error), detail=str(error)) from error


def _hub_sentence(name: str, error: BaseException) -> str:
    """Return what to do about an error of the hub.

    The libraries wrap it, so the whole chain of causes is searched.
    """
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    if any(isinstance(link, GatedRepoError) for link in chain) or "gated" in str(error):
        return f"{name} is gated: accept its licence on huggingface.co and set HF_TOKEN to your token."
    if any(isinstance(link, LocalEntryNotFoundError) for link in chain):
        return (
            f"{name} is not downloaded yet and the hub can't be reached: set --model to a folder or a file."
        )
    if any(isinstance(link, HfHubHTTPError) for link in chain):
        return (
            f"The hub has no model {name!r} that you may read: check the name, and HF_TOKEN if it is private."
        )
    return f"{name} can't be loaded: check that it is Stable Diffusion 3 Medium in diffusers' layout."


def from_file(path: Path, *, dtype: torch.dtype, t5: bool, architecture: Architecture = SD3_MEDIUM) -> Any:
    """Return the parts in one `.safetensors` file of the makers' own layout, text encoders included.

    Such a file has neither configurations nor vocabularies. The former come from `architecture`, the latter
    from the folders `tokenizer`, `tokenizer_2` and `tokenizer_3` beside the file, else from the hub.
    """
    _check_file(path, t5=t5)
    with tempfile.TemporaryDirectory() as folder:
        write_configs(architecture, Path(folder))
        try:
            return diffusers.StableDiffusion3Pipeline.from_single_file(
                str(path),
                config=folder,
                local_files_only=True,
                torch_dtype=dtype,
                **_vocabularies(path.parent, t5=t5),
                **({} if t5 else {"text_encoder_3": None}),
            )
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise OperatorError(
                f"{path} can't be read as Stable Diffusion 3 Medium: download it again.", detail=repr(error)
            ) from error


def _check_file(path: Path, *, t5: bool) -> None:
    """Raise `OperatorError` for a file that can't be used, before gigabytes of it are read."""
    if path.suffix != ".safetensors":
        raise OperatorError(f"{path.name} is not a .safetensors file, the only kind that is safe to open.")
    try:
        with safe_open(path, framework="pt") as file:
            names = frozenset(file.keys())
    except (OSError, SafetensorError) as error:
        raise OperatorError(f"{path} is damaged: download it again.", detail=str(error)) from error
    if _TRANSFORMER_MARK not in names:
        raise OperatorError(
            f"{path.name} is another kind of model; this server runs Stable Diffusion 3 Medium."
        )
    if _CLIP_MARK not in names:
        raise OperatorError(f"{path.name} lacks the text encoders: use the file with incl_clips in its name.")
    if t5 and _T5_MARK not in names:
        raise OperatorError(
            f"{path.name} lacks T5: use the file with t5xxl in its name, or start with --t5 off."
        )


def _vocabularies(folder: Path, *, t5: bool) -> dict[str, Any]:
    clip = transformers.CLIPTokenizer
    return {
        "tokenizer": _vocabulary(clip, folder / "tokenizer", CLIP_VOCABULARY),
        "tokenizer_2": _vocabulary(clip, folder / "tokenizer_2", CLIP_VOCABULARY),
        "tokenizer_3": _vocabulary(transformers.T5TokenizerFast, folder / "tokenizer_3", T5_VOCABULARY)
        if t5
        else None,
    }


def _vocabulary(kind: Any, folder: Path, name: str) -> Any:
    try:
        return kind.from_pretrained(str(folder) if folder.is_dir() else name)
    except (OSError, ValueError) as error:
        raise OperatorError(
            f"The vocabulary {name} must come from the hub once: allow that, or put it into {folder}.",
            detail=str(error),
        ) from error
