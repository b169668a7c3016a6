"""`gpu`: run the local server, and keep its keys. Mounted by the bot's own command line."""

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
from bot.gpu.api_keys import UNITS_A_CREDIT, open_keys

KEYS_PATH: Final = Path("data/gpu-keys.sqlite")
PORT: Final = 8420

app = typer.Typer(
    help="The local GPU server: the hosted API's contract on your own card.", no_args_is_help=False
)
keys_app = typer.Typer(help="Who may use the server, and how much.", no_args_is_help=True)
app.add_typer(keys_app, name="keys")

KeysOption = Annotated[Path, typer.Option("--keys", envvar="IMG2IMG_GPU_KEYS", help="The file of keys.")]


@app.callback(invoke_without_command=True)
def gpu(
    context: typer.Context,
    *,
    model: Annotated[
        str,
        typer.Option(envvar="IMG2IMG_GPU_MODEL", help="A folder, a .safetensors file, or a name on the hub."),
    ] = "",
    tiny: Annotated[bool, typer.Option("--tiny", help="A toy model: no card, no weights, no sense.")] = False,
    host: Annotated[
        str, typer.Option(help="Where to listen; others than this machine need a key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to listen.")] = PORT,
    memory: Annotated[
        int | None, typer.Option(help="Fit the model into 8, 12 or 24 GB; by default what the card has.")
    ] = None,
    t5: Annotated[
        str | None,
        typer.Option(help="The largest text encoder: on, off or 8bit; by default as memory allows."),
    ] = None,
    device: Annotated[str, typer.Option(help="The card: cuda, cuda:1, … or cpu.")] = "cuda",
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile the model: minutes at the start, then faster.")
    ] = False,
    image_host: Annotated[
        list[str] | None, typer.Option(help="A host that pictures may be fetched from; can be given again.")
    ] = None,
    keys: KeysOption = KEYS_PATH,
    with_parent: Annotated[
        bool, typer.Option("--with-parent", hidden=True, help="End when standard input is closed.")
    ] = False,
) -> None:
    """Run the server, unless a command follows."""
    if context.invoked_subcommand is not None:
        return
    if with_parent:
        _end_with_parent()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        # Imported late: torch takes seconds, which a command about keys need not wait for.
        from bot.gpu.start import Start, start  # noqa: PLC0415
    except ModuleNotFoundError as error:
        typer.echo(f"The GPU server needs more packages: pip install 'img2img-bot[gpu]' ({error}).", err=True)
        raise typer.Exit(1) from error
    given = Start(
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
    _run(start(given))


def _end_with_parent() -> None:
    """Stop, as on SIGTERM, once whoever started this process closes its standard input or dies."""

    def wait() -> None:
        while sys.stdin.buffer.read(1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="with-parent", daemon=True).start()


@keys_app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="What the key is called here.")],
    *,
    credits_given: Annotated[float, typer.Option("--credits", help="Its budget; one buys a usual picture.")],
    keys: KeysOption = KEYS_PATH,
) -> None:
    """Make a key and print it, once."""
    typer.echo(_run(_add(keys, name, credits_given)))


@keys_app.command("list")
def list_keys(*, keys: KeysOption = KEYS_PATH) -> None:
    """Print the keys' names and what each has left."""
    for line in _run(_lines(keys)):
        typer.echo(line)


@keys_app.command("revoke")
def revoke(
    name: Annotated[str, typer.Argument(help="What the key is called here.")], *, keys: KeysOption = KEYS_PATH
) -> None:
    """End a key for good."""
    _run(_revoke(keys, name))
    typer.echo(f"{name} works no more.")


async def _add(path: Path, name: str, credits_given: float) -> str:
    async with open_keys(path) as keys:
        return await keys.add(name, credits_given=credits_given)


async def _lines(path: Path) -> list[str]:
    async with open_keys(path) as keys:
        return [
            f"{key.name}\t{key.units / UNITS_A_CREDIT:.3f} credits\t{'revoked' if key.revoked else 'live'}"
            for key in await keys.all()
        ]


async def _revoke(path: Path, name: str) -> None:
    async with open_keys(path) as keys:
        await keys.revoke(name)


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a command; an `OperatorError` ends it with its sentence and status 1."""
    try:
        return asyncio.run(work)
    except OperatorError as error:
        typer.echo(str(error), err=True)
        if error.detail:
            typer.echo(error.detail, err=True)
        raise typer.Exit(1) from error
