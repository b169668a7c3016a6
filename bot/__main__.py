"""The command line: `img2img-bot run`, `demo`, `check`, `backup`, `restore` and `gpu`."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import sys
from pathlib import Path
from typing import Annotated

import typer

from bot.errors import OperatorError
from bot.gpu.cli import app as gpu_cli
from bot.logs import setup_logging
from bot.ops import backup as backups
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
    asyncio.run(_run(settings, settings.discord_token.get_secret_value()))


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
    asyncio.run(run_demo(port=port, open_browser=not no_browser, gpu_url=gpu_url))


@cli.command()
def check() -> None:
    """Check settings, database, ledger and backends; report what is wrong, one line each."""
    settings = _quiet_settings()
    findings = asyncio.run(check_everything(settings))
    for finding in findings:
        typer.echo(f"{'ok   ' if finding.good else 'WRONG'} {finding.sentence}")
    if not all(finding.good for finding in findings):
        raise typer.Exit(1)


@cli.command()
def backup(folder: Annotated[Path, typer.Argument(help="The target folder, on another disk.")]) -> None:
    """Back up the database and the pictures (safe while the bot runs) and verify the copy."""
    settings = _quiet_settings()
    copied = backups.back_up(settings.data_dir, folder, retention_days=settings.retention_days)
    typer.echo(f"Backed up to {folder}, ledger verified: {copied}.")


@cli.command()
def restore(
    folder: Annotated[Path, typer.Argument(help="A folder that `backup` wrote.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace the existing database, which is set aside.")
    ] = False,
) -> None:
    """Verify and restore a backup (stop the bot first)."""
    settings = _quiet_settings()
    copied = backups.restore(
        folder, settings.data_dir, replace=replace, retention_days=settings.retention_days
    )
    typer.echo(f"Restored into {settings.data_dir}, ledger verified: {copied}.")


def _quiet_settings() -> Settings:
    """Return the settings, with only errors logged: what a short command prints is its result."""
    settings = load_settings()
    setup_logging(level="ERROR", secrets=settings.secrets)
    return settings


def main() -> None:
    """Run the command line.

    What an operator can correct is one sentence and exit code 2; Typer ends an
    interrupted command (Ctrl-C) with exit code 130.
    """
    try:
        cli()
    except OperatorError as error:
        typer.echo(str(error), err=True)
        sys.exit(2)
    except (OSError, sqlite3.Error) as error:  # permissions, a full disk, a damaged file
        logging.getLogger(__name__).debug("Failed", exc_info=error)
        typer.echo(f"{error}. Check the disk and the folder in IMG2IMG_DATA_DIR.", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
