"""The bot in its own process with Discord on the loopback: `python -m tests.support.launcher API GATEWAY`.

Otherwise it does what `img2img-bot run` does, with the settings from the environment.
"""

from __future__ import annotations

import asyncio
import sys

from bot.gateway.supervisor import supervise
from bot.logs import setup_logging
from bot.settings import load_settings
from tests.support.live_bot import WireBot, pointed_at


def main() -> None:
    """Run until a signal arrives."""
    api, gateway = sys.argv[1:]
    settings = load_settings()
    assert settings.discord_token is not None
    setup_logging(level=settings.log_level, secrets=settings.secrets)
    with pointed_at(api, gateway):
        asyncio.run(
            supervise(
                settings,
                settings.discord_token.get_secret_value(),
                make_client=lambda: WireBot(api.removesuffix("/api/v10")),
            )
        )


if __name__ == "__main__":
    main()
