"""Finding the model and fitting it to the card: a folder, one file, or a name on the Hugging Face hub."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open

from bot.errors import OperatorError
from bot.gpu.model import FITS, T5, Fit, Model
from bot.gpu.sd3_architecture import SD3_MEDIUM, Architecture, diffusers, transformers, write_configs

#: The model as its makers publish it, in diffusers' layout; gated, so that an access token is needed.
HUB_MODEL: Final = "stabilityai/stable-diffusion-3-medium-diffusers"
#: Where the vocabularies are that a single file lacks; neither is gated.
CLIP_VOCABULARY: Final = "openai/clip-vit-large-patch14"
T5_VOCABULARY: Final = "google/t5-v1_1-xxl"

_TRANSFORMER_MARK: Final = "model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight"
_CLIP_MARK: Final = "text_encoders.clip_l.transformer.text_model.embeddings.position_embedding.weight"
_T5_MARK: Final = "text_encoders.t5xxl.transformer.shared.weight"
_GIGABYTE: Final = 1_000_000_000
_SLACK: Final = 0.95


def device_for(name: str) -> torch.device:
    """Return the device called `name`. Raises `OperatorError` if there is no such one here."""
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise OperatorError(
            "No CUDA card was found: check the driver and torch, or try the server without one by --tiny.",
            detail=f"torch {torch.__version__}",
        )
    return device


def memory_gb(device: torch.device) -> float:
    """Return a card's memory in gigabytes; for a processor, what the largest fit takes."""
    if device.type != "cuda":
        return float(max(FITS))
    return float(torch.cuda.mem_get_info(device)[1]) / _GIGABYTE


def fit_for(gb: float, *, t5: T5 | None = None, asked_gb: int | None = None) -> Fit:
    """Return how to lay the model onto a card of `gb` gigabytes.

    `asked_gb` (8, 12 or 24) takes that fit whatever the card has beyond it, `t5` overrides the fit's own.
    Raises `OperatorError` if the card is too small for any, or for what was asked.
    """
    possible = [size for size in FITS if size * _SLACK <= gb]
    if not possible or (asked_gb is not None and asked_gb not in possible):
        least = asked_gb or min(FITS)
        raise OperatorError(
            f"The card has {gb:.1f} GB of memory and this needs {least} GB: choose a smaller --memory."
        )
    fit = FITS[asked_gb or max(possible)]
    return fit if t5 is None else replace(fit, t5=t5)


def load(source: str, *, device: torch.device, fit: Fit) -> Model:
    """Return the model behind `source`: a folder, a `.safetensors` file, or a name on the hub.

    Raises `OperatorError` that says what to do.
    """
    path = Path(source).expanduser()
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    if path.is_file():
        parts = from_file(path, dtype=dtype, t5=fit.t5 != "off")
    elif path.is_dir():
        parts = from_folder(path, dtype=dtype, t5=fit.t5 != "off")
    else:
        parts = from_hub(source, dtype=dtype, t5=fit.t5 != "off")
    return on_card(parts, device=device, fit=fit)


def on_card(parts: Any, *, device: torch.device, fit: Fit) -> Model:
    """Return the model with its parts laid out. Raises `OperatorError` if memory is too short for that."""
    try:
        return Model(parts, device=device, fit=fit)
    except torch.OutOfMemoryError as error:
        raise OperatorError(
            "The card's memory is too short for the model: free some, or choose a smaller --memory.",
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
    """Return the parts in a folder of diffusers' layout. Asks no network."""
    if not (path / "model_index.json").is_file():
        raise OperatorError(
            f"{path} holds no model: a folder needs a model_index.json, as diffusers saves it."
        )
    if "StableDiffusion3" not in (path / "model_index.json").read_text(encoding="utf-8"):
        raise OperatorError(
            f"{path} holds another kind of model; this server runs Stable Diffusion 3 Medium."
        )
    try:
        return diffusers.StableDiffusion3Pipeline.from_pretrained(
            path, local_files_only=True, dtype=dtype, **_without(t5)
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise OperatorError(
            f"The model in {path} is incomplete or damaged: fetch it again.", detail=str(error)
        ) from error


def from_hub(name: str, *, dtype: torch.dtype, t5: bool) -> Any:
    """Return the parts published on the hub under `name`, fetched once and then kept by its client."""
    if name.count("/") != 1 or name.endswith(".safetensors"):
        raise OperatorError(
            f"{name!r} is no folder, no file and no name on the hub: check the --model setting."
        )
    try:
        return diffusers.StableDiffusion3Pipeline.from_pretrained(name, dtype=dtype, **_without(t5))
    except (OSError, ValueError) as error:
        raise OperatorError(_hub_sentence(name, error), detail=str(error)) from error


def _hub_sentence(name: str, error: BaseException) -> str:
    """Return what to do about an error of the hub, found anywhere in the chain of its causes."""
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    if any(isinstance(link, GatedRepoError) for link in chain) or "gated" in str(error):
        return f"{name} is gated: accept its licence on huggingface.co and set HF_TOKEN to your token."
    if any(isinstance(link, LocalEntryNotFoundError) for link in chain):
        return f"{name} is not here yet and the hub can't be reached: set --model to a folder or a file."
    if any(isinstance(link, HfHubHTTPError) for link in chain):
        return (
            f"The hub has no model {name!r}, or not for you: check the name, and HF_TOKEN if it is private."
        )
    return f"{name} can't be loaded: check that it is Stable Diffusion 3 Medium in diffusers' layout."


def from_file(path: Path, *, dtype: torch.dtype, t5: bool, architecture: Architecture = SD3_MEDIUM) -> Any:
    """Return the parts in one `.safetensors` file of the original layout, with its text encoders.

    The sizes of the parts are this program's own. The vocabularies, which such files lack, are taken from the
    folders `tokenizer`, `tokenizer_2` and `tokenizer_3` beside the file, else from the hub.
    """
    t5 = _check_file(path, t5=t5)
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
                f"{path} can't be read as Stable Diffusion 3 Medium: fetch it again.", detail=repr(error)
            ) from error


def _check_file(path: Path, *, t5: bool) -> bool:
    """Check what a file holds before gigabytes of it are read; return whether T5 can be used."""
    if path.suffix != ".safetensors":
        raise OperatorError(f"{path.name} is not a .safetensors file, the one kind that is safe to open.")
    try:
        with safe_open(path, framework="pt") as file:
            names = frozenset(file.keys())
    except (OSError, SafetensorError) as error:
        raise OperatorError(f"{path} is damaged: fetch it again.", detail=str(error)) from error
    if _TRANSFORMER_MARK not in names:
        raise OperatorError(
            f"{path.name} holds another kind of model; this server runs Stable Diffusion 3 Medium."
        )
    if _CLIP_MARK not in names:
        raise OperatorError(f"{path.name} lacks the text encoders: take the file whose name says incl_clips.")
    if t5 and _T5_MARK not in names:
        raise OperatorError(
            f"{path.name} lacks T5: take the file whose name says t5xxl, or start with --t5 off."
        )
    return t5


def _vocabularies(folder: Path, *, t5: bool) -> dict[str, Any]:
    clip, piece = transformers.CLIPTokenizer, transformers.T5TokenizerFast
    found = {
        "tokenizer": _vocabulary(clip, folder / "tokenizer", CLIP_VOCABULARY),
        "tokenizer_2": _vocabulary(clip, folder / "tokenizer_2", CLIP_VOCABULARY),
    }
    third = _vocabulary(piece, folder / "tokenizer_3", T5_VOCABULARY) if t5 else None
    return {**found, "tokenizer_3": third}


def _vocabulary(kind: Any, folder: Path, name: str) -> Any:
    try:
        return kind.from_pretrained(str(folder) if folder.is_dir() else name)
    except (OSError, ValueError) as error:
        raise OperatorError(
            f"The vocabulary {name} is needed once from the hub: allow that, or put it into {folder}.",
            detail=str(error),
        ) from error
