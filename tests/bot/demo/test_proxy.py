"""The demo's proxy: presses on outdated pages count, and only this machine is served."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

pytest.importorskip("simcord", reason="the demo's extra is not installed")

from bot.demo.session import Demo, open_demo
from bot.errors import OperatorError


@pytest.fixture
async def demo() -> AsyncIterator[Demo]:
    """A demo that paints as fast as possible."""
    async with open_demo(step_s=0) as running:
        yield running


@pytest.fixture
async def client(demo: Demo) -> AsyncIterator[httpx.AsyncClient]:
    """A browser's requests, without the browser."""
    address, capability = demo.url.split("/#")
    headers = {"X-Simcord-Capability": capability, "Origin": address}
    async with httpx.AsyncClient(base_url=address, headers=headers, trust_env=False, timeout=60) as client:
        yield client


class Page:
    """One open tab."""

    def __init__(self, client: httpx.AsyncClient, state: dict[str, Any]) -> None:
        self._client = client
        self.state = state
        self._headers = {"X-Simcord-Context": state["context"]["id"]}
        self._presses = 0

    @classmethod
    async def open(cls, client: httpx.AsyncClient) -> Page:
        """Open a tab as the first member."""
        answer = await client.post("/api/pages", json={})
        return cls(client, answer.json())

    async def poll(self) -> dict[str, Any]:
        """Poll, as the page does twice a second."""
        answer = await self._client.get("/api/state", headers=self._headers)
        self.state = answer.json()
        return self.state

    async def credits(self) -> dict[str, Any]:
        """Send /credits show from the snapshot that this tab has."""
        answer = await self._client.get("/api/commands", headers=self._headers)
        entry = next(entry for entry in answer.json()["entries"] if entry["invocation"] == "credits show")
        self._presses += 1
        body = {
            "kind": "run_command",
            "command_id": entry["commandId"],
            "path": entry["path"],
            "schema_fingerprint": entry["schemaFingerprint"],
            "options": {},
            "protocol_version": 3,
            "sequence": self._presses,
            "request_id": f"press-{self._presses}",
            "generation": self.state["context"]["generation"],
            "bot_generation": self.state["botGeneration"],
            "published_revision": self.state["publishedRevision"],
        }
        answer = await self._client.post("/api/action", content=_compact(body), headers=self._headers)
        receipt: dict[str, Any] = answer.json()
        return receipt


def _compact(body: dict[str, Any]) -> bytes:
    """Return compact JSON, as a browser sends it."""
    return httpx.Request("POST", "http://localhost", json=body).content


async def test_a_press_on_an_outdated_page_counts(client: httpx.AsyncClient) -> None:
    """A press counts even if the page has not caught up with the newest snapshot."""
    late, other = await Page.open(client), await Page.open(client)
    seen = late.state["publishedRevision"]
    assert (await other.credits())["settlement"] == "settled"
    await other.poll()
    receipt = await late.credits()
    assert receipt["settlement"] == "settled"
    assert receipt["revision"] > seen + 1
    assert not receipt["diagnostics"]


async def test_a_page_sees_what_is_new_when_it_polls(demo: Demo, client: httpx.AsyncClient) -> None:
    """What the bot has sent is published when a page polls, and only if there is anything new."""
    page = await Page.open(client)
    settled = (await page.poll())["publishedRevision"]
    assert (await page.poll())["publishedRevision"] == settled
    member = demo.preview.viewers[0]
    await member.slash(demo.preview.channel, "credits show")
    assert (await page.poll())["publishedRevision"] == settled + 1


async def test_only_this_machine_is_served(client: httpx.AsyncClient) -> None:
    """A page under another host name, or of another origin, is refused."""
    elsewhere = await client.get("/", headers={"Host": "somewhere.example"})
    assert elsewhere.status_code == 403
    foreign = await client.post("/api/pages", json={}, headers={"Origin": "http://somewhere.example"})
    assert foreign.status_code == 401


async def test_the_page_keeps_the_newest_message_in_view(client: httpx.AsyncClient) -> None:
    """The page includes the demo's own script."""
    page = await client.get("/")
    assert '<script type="module" src="/demo.js"></script>' in page.text
    assert "following" in (await client.get("/demo.js")).text


async def test_a_port_in_use_is_one_sentence() -> None:
    """An operator who asks for a port in use is asked to choose another."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OperatorError, match=f"Port {port} is already in use; choose another with --port"):
            async with open_demo(port=port):
                pass
