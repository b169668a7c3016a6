"""Fixtures for the tests of the HTTP backends: an image service on the loopback and a clock without waits."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.provider import Provider, QuickClock, running_provider


@pytest.fixture
async def provider(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Provider]:
    """An image service that answers with a picture unless set otherwise, called without any proxy."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    async with running_provider() as provider:
        yield provider


@pytest.fixture
def clock() -> QuickClock:
    """A clock whose waits take no time."""
    return QuickClock()
