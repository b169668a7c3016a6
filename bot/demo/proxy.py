"""The demo's reverse proxy: no press fails because the page has just been published again.

The simulator's page shows published snapshots. The simulator rejects an action that was
made on an older snapshot, and loses one that arrives while it publishes. So this proxy
stands between browser and simulator: it publishes what is new when a page polls, handles
one poll or action at a time, and sets each action's revision to the newest snapshot's.
It also adds a script to the page that keeps the newest message in view.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from importlib import resources
from typing import Final

import httpx
import simcord
from aiohttp import web

from bot.errors import OperatorError

HOST: Final = "127.0.0.1"
#: Above the simulator's own limit of 26 MiB, so that the simulator answers what is too large.
BODY_BYTES_MAX: Final = 32 * 1024 * 1024
#: The simulator answers an action once the bot has settled, within 20 s.
ANSWER_TIMEOUT_S: Final = 30.0

SCRIPT_PATH: Final = "/demo.js"
SCRIPT_TAG: Final = f'<script type="module" src="{SCRIPT_PATH}"></script></body>'

#: Headers of a single connection, or set by each sender: never forwarded.
_HOP_HEADERS: Final = frozenset(
    {"connection", "content-encoding", "content-length", "date", "host", "keep-alive", "server"}
    | {"transfer-encoding", "upgrade"}
)
#: Works on JSON bodies and on forms that contain one: quotes inside JSON strings are escaped.
_REVISION: Final = re.compile(rb'"published_revision":\d+')


class PreviewProxy:
    """Forwards requests to the simulator's page."""

    def __init__(
        self,
        env: simcord.Env,
        preview: simcord.Preview,
        client: httpx.AsyncClient,
        catch_up: Callable[[], None],
    ) -> None:
        """Forward to `preview` through `client`; `catch_up` advances the simulator's clock to now."""
        self._env = env
        self._preview = preview
        self._client = client
        self._catch_up = catch_up
        self._one_at_a_time = asyncio.Lock()
        self._published = -1

    def app(self) -> web.Application:
        """Return the web application."""
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        app.router.add_post("/api/action", self._handle_action)
        app.router.add_post("/api/pages", self._handle_poll)
        app.router.add_get("/api/state", self._handle_poll)
        app.router.add_get("/", self._handle_page)
        app.router.add_get(SCRIPT_PATH, self._handle_script)
        app.router.add_route("*", "/{path:.*}", self._handle_other)
        return app

    async def _handle_other(self, request: web.Request) -> web.Response:
        return _to_response(await self._forward(request, await request.read()))

    async def _handle_page(self, request: web.Request) -> web.Response:
        answer = await self._forward(request, b"")
        page = answer.text.replace("</body>", SCRIPT_TAG)
        return web.Response(
            status=answer.status_code, body=page.encode(), headers=_forwarded_headers(answer.headers)
        )

    async def _handle_script(self, _request: web.Request) -> web.Response:
        script = (resources.files("bot.demo") / "assets" / "demo.js").read_text()
        return web.Response(text=script, content_type="text/javascript")

    async def _handle_poll(self, request: web.Request) -> web.Response:
        body = await request.read()
        async with self._one_at_a_time:
            await self._publish()
            return _to_response(await self._forward(request, body))

    async def _handle_action(self, request: web.Request) -> web.Response:
        body = await request.read()
        async with self._one_at_a_time:
            self._catch_up()
            state = await self._send(request, "GET", "/api/state", b"")
            if state.is_success:
                newest = b'"published_revision":%d' % state.json()["publishedRevision"]
                body = _REVISION.sub(newest, body, count=1)
            return _to_response(await self._forward(request, body))

    async def _publish(self) -> None:
        """Publish a snapshot if the bot has sent anything since the last one."""
        self._catch_up()
        sent = len(self._env.http_requests)
        if sent == self._published:
            return
        with contextlib.suppress(simcord.SetupError, TimeoutError):  # not settled yet: left to the next poll
            await self._preview.refresh()
            self._published = sent

    async def _forward(self, request: web.Request, body: bytes) -> httpx.Response:
        return await self._send(request, request.method, request.rel_url.raw_path_qs, body)

    async def _send(self, request: web.Request, method: str, path: str, body: bytes) -> httpx.Response:
        if request.url.host not in (HOST, "localhost"):
            raise web.HTTPForbidden  # DNS rebinding: another site's name that resolves to this machine
        headers = _forwarded_headers(request.headers)
        if request.headers.get("Origin") == str(request.url.origin()):
            headers["Origin"] = str(self._client.base_url).rstrip("/")
        try:
            return await self._client.request(method, path, headers=headers, content=body)
        except httpx.TransportError as error:
            raise web.HTTPServiceUnavailable from error


def _forwarded_headers(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _HOP_HEADERS}


def _to_response(answer: httpx.Response) -> web.Response:
    return web.Response(
        status=answer.status_code, body=answer.content, headers=_forwarded_headers(answer.headers)
    )


@asynccontextmanager
async def open_proxy(
    env: simcord.Env, preview: simcord.Preview, *, port: int, catch_up: Callable[[], None]
) -> AsyncIterator[str]:
    """Serve the page on a loopback port (0 takes a free one) and yield its address.

    Raises `OperatorError` if the port is in use.
    """
    inner, _, capability = preview.url.partition("/#")
    async with httpx.AsyncClient(base_url=inner, trust_env=False, timeout=ANSWER_TIMEOUT_S) as client:
        proxy = PreviewProxy(env, preview, client, catch_up)
        runner = web.AppRunner(proxy.app(), access_log=None, shutdown_timeout=1)
        await runner.setup()
        try:
            await _listen(runner, port)
            yield f"http://{HOST}:{runner.addresses[0][1]}/#{capability}"
        finally:
            await runner.cleanup()


async def _listen(runner: web.AppRunner, port: int) -> None:
    try:
        await web.TCPSite(runner, HOST, port).start()
    except OSError as error:
        raise OperatorError(
            f"Port {port} is already in use; choose another with --port, or leave it out.", detail=str(error)
        ) from error
