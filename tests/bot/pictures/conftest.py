"""What the tests of pictures share: a pool."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest_asyncio

from bot.pictures.pool import PicturePool


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool() -> AsyncIterator[PicturePool]:
    """Give a pool whose children live for the whole module."""
    async with aclosing(PicturePool()) as made:
        yield made
