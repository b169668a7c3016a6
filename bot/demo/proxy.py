"""The demo's door: what a person presses never fails because the page was just published anew.

The simulator shows published snapshots of its world. It turns down a press that was
made on an older snapshot, and loses one that comes while it publishes. So the door
stands between browser and simulator: it publishes what is new when a page asks for
it, lets one request that matters through at a time, and dates each press to the
newest snapshot. It also adds a script to the page, which keeps the newest message in
view.
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
#: The simulator takes 26 MiB at most in one request.
BODY_BYTES_MAX: Final = 32 * 1024 * 1024
#: The simulator answers a press once the bot has settled, within 20 s.
ANSWER_TIMEOUT_S: Final = 30.0

SCRIPT_PATH: Final = "/demo.js"
SCRIPT_TAG: Final = f'<script type="module" src="{SCRIPT_PATH}"></script></body>'

#: Headers of one connection, or made anew by whoever sends.
_OWN_HEADERS: Final = frozenset(
    {"connection", "content-encoding", "content-length", "date", "host", "keep-alive", "server"}
    | {"transfer-encoding", "upgrade"}
)
#: In a request's JSON, also where it is the first part of a form. Quotes inside of texts are escaped there.
_REVISION: Final = re.compile(rb'"published_revision":\d+')


class Door:
    """Hands requests on to the simulator's page and its answers back."""

    def __init__(
        self,
        env: simcord.Env,
        preview: simcord.Preview,
        client: httpx.AsyncClient,
        catch_up: Callable[[], None],
    ) -> None:
        """Stand before `preview`, which `client` reaches; `catch_up` moves the simulator's clock on."""
        self._env = env
        self._preview = preview
        self._client = client
        self._catch_up = catch_up
        self._one_at_a_time = asyncio.Lock()
        self._sent = -1

    def app(self) -> web.Application:
        """Return the web application that serves the door."""
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        app.router.add_post("/api/action", self._act)
        app.router.add_post("/api/pages", self._look)
        app.router.add_get("/api/state", self._look)
        app.router.add_get("/", self._page)
        app.router.add_get(SCRIPT_PATH, self._script)
        app.router.add_route("*", "/{path:.*}", self._pass)
        return app

    async def _pass(self, request: web.Request) -> web.Response:
        return _answer(await self._hand_on(request, await request.read()))

    async def _page(self, request: web.Request) -> web.Response:
        answer = await self._hand_on(request, b"")
        page = answer.text.replace("</body>", SCRIPT_TAG)
        return web.Response(status=answer.status_code, body=page.encode(), headers=_handed_on(answer.headers))

    async def _script(self, _request: web.Request) -> web.Response:
        script = (resources.files("bot.demo") / "assets" / "demo.js").read_text()
        return web.Response(text=script, content_type="text/javascript")

    async def _look(self, request: web.Request) -> web.Response:
        body = await request.read()
        async with self._one_at_a_time:
            await self._publish()
            return _answer(await self._hand_on(request, body))

    async def _act(self, request: web.Request) -> web.Response:
        body = await request.read()
        async with self._one_at_a_time:
            self._catch_up()
            state = await self._send(request, "GET", "/api/state", b"")
            if state.is_success:
                newest = b'"published_revision":%d' % state.json()["publishedRevision"]
                body = _REVISION.sub(newest, body, count=1)
            return _answer(await self._hand_on(request, body))

    async def _publish(self) -> None:
        """Let pages see what the bot has sent since the last time."""
        self._catch_up()
        sent = len(self._env.http_requests)
        if sent == self._sent:
            return
        with contextlib.suppress(simcord.SetupError, TimeoutError):  # not settled yet: the next look sees it
            await self._preview.refresh()
            self._sent = sent

    async def _hand_on(self, request: web.Request, body: bytes) -> httpx.Response:
        return await self._send(request, request.method, request.rel_url.raw_path_qs, body)

    async def _send(self, request: web.Request, method: str, path: str, body: bytes) -> httpx.Response:
        if request.url.host not in (HOST, "localhost"):
            raise web.HTTPForbidden  # a name that was made to point here
        headers = _handed_on(request.headers)
        if request.headers.get("Origin") == str(request.url.origin()):
            headers["Origin"] = str(self._client.base_url).rstrip("/")
        try:
            return await self._client.request(method, path, headers=headers, content=body)
        except httpx.TransportError as error:
            raise web.HTTPServiceUnavailable from error


def _handed_on(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _OWN_HEADERS}


def _answer(answer: httpx.Response) -> web.Response:
    return web.Response(status=answer.status_code, body=answer.content, headers=_handed_on(answer.headers))


@asynccontextmanager
async def open_door(
    env: simcord.Env, preview: simcord.Preview, *, port: int, catch_up: Callable[[], None]
) -> AsyncIterator[str]:
    """Serve the door at `port` of this machine (0 takes a free one) and yield the page's address.

    Raises `OperatorError` where the port is taken.
    """
    inner, _, capability = preview.url.partition("/#")
    async with httpx.AsyncClient(base_url=inner, trust_env=False, timeout=ANSWER_TIMEOUT_S) as client:
        door = Door(env, preview, client, catch_up)
        runner = web.AppRunner(door.app(), access_log=None, shutdown_timeout=1)
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
            f"Port {port} is taken; choose another with --port, or leave it out.", detail=str(error)
        ) from error
