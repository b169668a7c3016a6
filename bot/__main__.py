"""The command line: `img2img-bot run`, `demo`, `check`, `backup` and `restore`."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from bot.errors import OperatorError
from bot.gpu.cli import app as gpu_cli
from bot.logs import setup_logging
from bot.ops.backup import back_up
from bot.ops.backup import restore as put_back
from bot.ops.check import check_everything
from bot.settings import Settings, load_settings

cli = typer.Typer(
    help="A Discord bot that turns one picture into another.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)


cli.add_typer(gpu_cli, name="gpu")


@cli.command()
def run() -> None:
    """Run the bot on Discord (needs IMG2IMG_DISCORD_TOKEN)."""
    settings = load_settings()
    if settings.discord_token is None:
        raise OperatorError(
            "IMG2IMG_DISCORD_TOKEN is empty; set it to your bot's token, or try `img2img-bot demo`."
        )
    setup_logging(level=settings.log_level, secrets=settings.secrets)
    _execute(_run(settings, settings.discord_token.get_secret_value()))


async def _run(settings: Settings, token: str) -> None:
    from bot.gateway.client import Img2ImgBot  # noqa: PLC0415 - `--help` need not load Discord's library
    from bot.gateway.supervisor import supervise  # noqa: PLC0415

    await supervise(settings, token, make_client=Img2ImgBot)


@cli.command()
def demo(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page; 0 takes a free one.")] = 0,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only print the address.")] = False,
    gpu_url: Annotated[
        str | None, typer.Option("--gpu-url", help="Make the pictures with the GPU server at this address.")
    ] = None,
) -> None:
    """Try the bot in a browser, without Discord, token, key or GPU."""
    try:
        from bot.demo.session import run_demo  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise OperatorError(
            "The demo is an extra; install it with `pip install 'img2img-bot[demo]'`."
        ) from error
    setup_logging(level="WARNING", secrets=())
    _execute(run_demo(port=port, open_browser=not no_browser, gpu_url=gpu_url))


@cli.command()
def check() -> None:
    """Check settings, database, books and backends; say in a sentence each what is wrong."""
    settings = load_settings()
    setup_logging(level="ERROR", secrets=settings.secrets)
    findings = _execute(check_everything(settings))
    for finding in findings:
        typer.echo(f"{'ok   ' if finding.good else 'WRONG'} {finding.sentence}")
    if not all(finding.good for finding in findings):
        raise typer.Exit(1)


@cli.command()
def backup(folder: Annotated[Path, typer.Argument(help="Where to, on another disk.")]) -> None:
    """Copy books and pictures to a folder, the bot running or not, and prove the copy."""
    settings = load_settings()
    setup_logging(level="ERROR", secrets=settings.secrets)
    copied = back_up(settings.data_dir, folder, retention_days=settings.retention_days)
    typer.echo(f"Backed up to {folder}, books proved: {copied}.")


@cli.command()
def restore(
    folder: Annotated[Path, typer.Argument(help="What `backup` wrote.")],
    replace: Annotated[bool, typer.Option("--replace", help="Set aside the database that is there.")] = False,
) -> None:
    """Put a backup in place while no bot runs."""
    settings = load_settings()
    setup_logging(level="ERROR", secrets=settings.secrets)
    copied = put_back(folder, settings.data_dir, replace=replace, retention_days=settings.retention_days)
    typer.echo(f"Restored into {settings.data_dir}, books proved: {copied}.")


def _execute(work: Coroutine[Any, Any, Any]) -> Any:
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        logging.getLogger(__name__).info("Stopped")
        return None


def main() -> None:
    """Run the command line; an operator's mistake is one sentence and exit code 2."""
    try:
        cli()
    except OperatorError as error:
        typer.echo(str(error), err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
