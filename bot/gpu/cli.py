"""The command `gpu`: runs the local server and manages its keys. Part of the bot's own command line."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from bot.errors import OperatorError
from bot.gpu.api_keys import UNITS_PER_CREDIT, ApiKey
from bot.gpu.key_file import open_keys

KEYS_PATH: Final = Path("data/gpu-keys.sqlite")
PORT: Final = 8420

app = typer.Typer(
    help="The local GPU server: the hosted API's contract on your own card.", no_args_is_help=False
)
keys_app = typer.Typer(help="Keys: who may use the server, and how much.", no_args_is_help=True)
app.add_typer(keys_app, name="keys")

KeysOption = Annotated[
    Path, typer.Option("--keys", envvar="IMG2IMG_GPU_KEYS", help="The file that the keys are kept in.")
]


@app.callback(invoke_without_command=True)
def gpu(
    context: typer.Context,
    *,
    model: Annotated[
        str,
        typer.Option(envvar="IMG2IMG_GPU_MODEL", help="A folder, a .safetensors file, or a name on the hub."),
    ] = "",
    tiny: Annotated[
        bool,
        typer.Option("--tiny", help="A tiny model built in code, for trials: its pictures mean nothing."),
    ] = False,
    host: Annotated[str, typer.Option(help="Address to listen on; other machines need a key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = PORT,
    memory: Annotated[
        int | None,
        typer.Option(help="Fit the model into 8, 12 or 24 GB; by default, the memory of the card."),
    ] = None,
    t5: Annotated[
        str | None,
        typer.Option(help="The largest text encoder: on, off or 8bit; by default, as memory allows."),
    ] = None,
    device: Annotated[str, typer.Option(help="The card to use: cuda, cuda:1, … or cpu.")] = "cuda",
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile the model: starting takes minutes, then it is faster.")
    ] = False,
    image_host: Annotated[
        list[str] | None, typer.Option(help="A host that pictures may be fetched from; repeat for several.")
    ] = None,
    keys: KeysOption = KEYS_PATH,
    with_parent: Annotated[
        bool, typer.Option("--with-parent", hidden=True, help="Stop when standard input is closed.")
    ] = False,
) -> None:
    """Run the server, unless a command follows."""
    if context.invoked_subcommand is not None:
        return
    if with_parent:
        _stop_with_parent()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        # Imported late: torch takes seconds, and a command about keys doesn't need it.
        from bot.gpu.start import StartOptions, start  # noqa: PLC0415
    except ModuleNotFoundError as error:
        typer.echo(f"The GPU server needs more packages: pip install 'img2img-bot[gpu]' ({error}).", err=True)
        raise typer.Exit(1) from error
    options = StartOptions(
        model=model,
        tiny=tiny,
        host=host,
        port=port,
        memory_gb=memory,
        t5=t5,
        device=device,
        compiled=compiled,
        image_hosts=frozenset(image_host or ()),
        keys_path=keys,
    )
    _run(start(options))


def _stop_with_parent() -> None:
    """Stop, as on SIGTERM, when the process that started this one closes our standard input or dies.

    A parent that is killed can't stop its child, but the system closes the pipe between them.
    """

    def wait() -> None:
        while sys.stdin.buffer.read(1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="with-parent", daemon=True).start()


@keys_app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="The name of the key.")],
    *,
    credits_given: Annotated[
        float,
        typer.Option("--credits", help="Its budget; one credit buys a picture of 1024 x 1024 in 20 steps."),
    ],
    keys: KeysOption = KEYS_PATH,
) -> None:
    """Make a key and print it; it can't be shown again."""
    typer.echo(_run(_add(keys, name, credits_given)))


@keys_app.command("list")
def list_keys(*, keys: KeysOption = KEYS_PATH) -> None:
    """List the keys with their remaining credits."""
    for line in _run(_list_lines(keys)):
        typer.echo(line)


@keys_app.command("revoke")
def revoke(
    name: Annotated[str, typer.Argument(help="The name of the key.")], *, keys: KeysOption = KEYS_PATH
) -> None:
    """Revoke a key for good."""
    _run(_revoke(keys, name))
    typer.echo(f"Revoked {name}.")


async def _add(path: Path, name: str, credits_given: float) -> str:
    async with open_keys(path) as keys:
        return await keys.add(name, credits_given=credits_given)


async def _list_lines(path: Path) -> list[str]:
    async with open_keys(path) as keys:
        return [
            f"{key.name}\t{key.units / UNITS_PER_CREDIT:.3f} credits\t{_state(key)}"
            for key in await keys.list_all()
        ]


def _state(key: ApiKey) -> str:
    return "revoked" if key.revoked else "active"


async def _revoke(path: Path, name: str) -> None:
    async with open_keys(path) as keys:
        await keys.revoke(name)


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a command; an `OperatorError` ends it with its sentence and exit status 1."""
    try:
        return asyncio.run(work)
    except OperatorError as error:
        typer.echo(str(error), err=True)
        if error.detail:
            typer.echo(error.detail, err=True)
        raise typer.Exit(1) from error
