"""Discord as it looks from a socket: HTTP and gateway on the loopback, under the unmodified library.

Only what the bot uses is there. Every request is judged by `tests.discord.bodies`
and kept; `faults` make the next requests fail in the ways that networks do.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

from aiohttp import BodyPartReader, WSCloseCode, WSMsgType, web

from tests.support.discord_bodies import faults_of

APPLICATION_ID: Final = 900_000_000_000_000_001
GUILD_ID: Final = 900_000_000_000_000_002
CHANNEL_ID: Final = 900_000_000_000_000_003
OWNER_ID: Final = 900_000_000_000_000_004
ALICE_ID: Final = 900_000_000_000_000_005
BOB_ID: Final = 900_000_000_000_000_006
TOKEN: Final = "OTAwMDAwMDAwMDAwMDAwMDAx.AAAAAA.planted-bot-token-000000000000000"  # noqa: S105 - made up
DISCORD_EPOCH_MS: Final = 1_420_070_400_000
ALL_PERMISSIONS: Final = str((1 << 50) - 1)
MEMBER_PERMISSIONS: Final = str(1 << 10 | 1 << 11 | 1 << 14 | 1 << 15)

Hook = Callable[[str], Awaitable[None]]


class Hangup(Exception):
    """Cut this connection without a word."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to the next request that matches: an answer, a cut before it is done, or one after."""

    method: str
    path: str
    status: int = 0
    body: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    cut: str = ""


@dataclass(slots=True)
class Request:
    """One request as it came: `body` the JSON, `files` the names of what was sent along."""

    method: str
    path: str
    body: Any
    files: dict[str, bytes]
    authorization: str


@dataclass(slots=True)
class Message:
    """A message that people see."""

    id: int
    channel_id: int
    body: dict[str, Any]
    files: dict[str, bytes]
    private: bool = False
    edits: int = 0


@dataclass(slots=True)
class Session:
    """A gateway session: what was sent in it can be sent again."""

    id: str
    shard: tuple[int, int]
    sent: list[dict[str, Any]] = field(default_factory=list)
    socket: web.WebSocketResponse | None = None


class Wire:
    """The stand-in. `url` is where its API is, `gateway` where its gateway is."""

    def __init__(self) -> None:
        self.url = ""
        self.gateway = ""
        self.requests: list[Request] = []
        self.complaints: list[str] = []
        self.messages: dict[int, Message] = {}
        self.deleted: set[int] = set()
        self.answered: dict[str, int] = {}
        self.expired: set[str] = set()
        self.faults: list[Fault] = []
        self.attachments: dict[str, bytes] = {}
        self.shards = 1
        self.identified: list[tuple[int, int]] = []
        self.resumed = 0
        self.refuse_resume = False
        self.dead = False
        self.before: Hook | None = None
        self.after: Hook | None = None
        self._sessions: dict[str, Session] = {}
        self._nonces: dict[tuple[int, str], int] = {}
        self._ids = count(1)
        self._changed = asyncio.Event()

    def snowflake(self) -> int:
        """Return a new id, made now."""
        return (int(time.time() * 1000) - DISCORD_EPOCH_MS << 22) | next(self._ids) % (1 << 22)

    async def until(self, ready: Callable[[], bool], *, timeout_s: float = 20) -> None:
        """Wait until `ready` says so; it is asked after everything that happens here."""
        async with asyncio.timeout(timeout_s):
            while not ready():
                self._changed.clear()
                await self._changed.wait()

    @property
    def online(self) -> bool:
        """Tell whether every shard has a socket."""
        shards = {s.shard[0] for s in self._sessions.values() if s.socket is not None and not s.socket.closed}
        return len(shards) == self.shards

    def seen(self, *, channel_id: int = CHANNEL_ID) -> list[Message]:
        """Return the messages that everyone sees in a channel, oldest first."""
        return [m for m in self.messages.values() if m.channel_id == channel_id and not m.private]

    # ----------------------------------------------------------------- people

    async def slash(self, *, user_id: int = ALICE_ID, **options: Any) -> dict[str, Any]:
        """Let a member type `/img2img`; `image` is the file's bytes. Returns the event as it was sent."""
        image = options.pop("image", None)
        resolved: dict[str, Any] = {}
        given: list[dict[str, Any]] = []
        if image is not None:
            attachment = self._attachment(image)
            resolved = {"attachments": {attachment["id"]: attachment}}
            given.append({"name": "image", "type": 11, "value": attachment["id"]})
        kinds = {bool: 5, str: 3, int: 4, float: 10}
        given += [{"name": k, "type": kinds[type(v)], "value": v} for k, v in options.items()]
        data = {"id": "1", "name": "img2img", "type": 1, "options": given, "resolved": resolved}
        return await self.interact(2, data, user_id=user_id)

    async def press(
        self, custom_id: str, *, on: Message | None = None, user_id: int = ALICE_ID, guild_id: int = GUILD_ID
    ) -> dict[str, Any]:
        """Let a member press a button, which may be one that was never shown."""
        data = {"custom_id": custom_id, "component_type": 2, "id": 2}
        button = {"type": 2, "id": 2, "style": 2, "label": "?", "custom_id": custom_id}
        payload = self._payload(on or Message(self.snowflake(), CHANNEL_ID, {}, {}))
        payload |= {"components": [{"type": 1, "id": 1, "components": [button]}], "flags": 0}
        return await self.interact(3, data, user_id=user_id, guild_id=guild_id, message=payload)

    async def interact(
        self,
        kind: int,
        data: dict[str, Any],
        *,
        user_id: int = ALICE_ID,
        guild_id: int = GUILD_ID,
        **more: Any,
    ) -> dict[str, Any]:
        """Send an interaction of `kind` (2: command, 3: component, 5: modal)."""
        interaction_id = self.snowflake()
        event = {
            "id": str(interaction_id),
            "application_id": str(APPLICATION_ID),
            "type": kind,
            "version": 1,
            "token": f"aW50ZXJhY3Rpb246planted-{interaction_id}",
            "guild_id": str(guild_id),
            "channel_id": str(CHANNEL_ID),
            "channel": _channel(),
            "member": _member(user_id),
            "app_permissions": ALL_PERMISSIONS,
            "locale": "en-US",
            "guild_locale": "en-US",
            "entitlements": [],
            "authorizing_integration_owners": {"0": str(guild_id)},
            "context": 0,
            "attachment_size_limit": 10 << 20,
            "data": data,
            **more,
        }
        await self.dispatch("INTERACTION_CREATE", event)
        return event

    def _attachment(self, data: bytes) -> dict[str, Any]:
        attachment_id = str(self.snowflake())
        self.attachments[attachment_id] = data
        url = f"https://cdn.discordapp.com/attachments/{attachment_id}"
        return {"id": attachment_id, "filename": "in.png", "size": len(data), "url": url, "proxy_url": url}

    # ---------------------------------------------------------------- gateway

    async def dispatch(self, name: str, data: dict[str, Any]) -> None:
        """Send an event to the shard of its server; one whose socket is gone gets it on RESUME."""
        guild_id = int(data.get("guild_id", 0))
        session = self._of_shard((guild_id >> 22) % self.shards)
        event = {"op": 0, "t": name, "s": len(session.sent) + 1, "d": data}
        session.sent.append(event)
        if session.socket is not None and not session.socket.closed:
            await session.socket.send_json(event)

    def _of_shard(self, shard_id: int) -> Session:
        return next(s for s in reversed(self._sessions.values()) if s.shard[0] == shard_id)

    async def drop(self, *, shard_id: int = 0, code: int = 4000) -> None:
        """Close a shard's socket."""
        session = self._of_shard(shard_id)
        if session.socket is not None:
            await session.socket.close(code=code)
            session.socket = None

    async def _gateway(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_json({"op": 10, "d": {"heartbeat_interval": 41_250}})
        async for message in socket:
            if message.type == WSMsgType.TEXT:
                await self._heard(socket, json.loads(message.data))
                self._changed.set()
        self._changed.set()
        return socket

    async def _heard(self, socket: web.WebSocketResponse, frame: dict[str, Any]) -> None:
        match frame["op"]:
            case 1:
                await socket.send_json({"op": 11})
            case 2:
                await self._identify(socket, frame["d"])
            case 6:
                await self._resume(socket, frame["d"])
            case _:
                pass

    async def _identify(self, socket: web.WebSocketResponse, data: dict[str, Any]) -> None:
        if data["token"] != TOKEN:
            await socket.close(code=4004)
            return
        shard_id, shards = data.get("shard") or (0, 1)
        self.identified.append((shard_id, shards))
        session = Session(f"session-{next(self._ids)}", (shard_id, shards), socket=socket)
        self._sessions[session.id] = session
        mine = [GUILD_ID] if (GUILD_ID >> 22) % shards == shard_id else []
        await self._say(session, "READY", {
            "v": 10,
            "user": _user(APPLICATION_ID, bot=True),
            "guilds": [{"id": str(guild_id), "unavailable": True} for guild_id in mine],
            "session_id": session.id,
            "resume_gateway_url": self.gateway,
            "shard": [shard_id, shards],
            "application": {"id": str(APPLICATION_ID), "flags": 0},
        })  # fmt: skip
        for guild_id in mine:
            await self._say(session, "GUILD_CREATE", _guild(guild_id))

    async def _say(self, session: Session, name: str, data: dict[str, Any]) -> None:
        event = {"op": 0, "t": name, "s": len(session.sent) + 1, "d": data}
        session.sent.append(event)
        assert session.socket is not None
        await session.socket.send_json(event)

    async def _resume(self, socket: web.WebSocketResponse, data: dict[str, Any]) -> None:
        session = self._sessions.get(data["session_id"])
        if session is None or self.refuse_resume:
            self.refuse_resume = False
            await socket.send_json({"op": 9, "d": False})
            return
        session.socket = socket
        for event in session.sent[data["seq"] :]:
            await socket.send_json(event)
        await self._say(session, "RESUMED", {})
        self.resumed += 1

    async def invalidate(self, *, shard_id: int = 0) -> None:
        """Tell a shard that its session is over: it has to identify anew."""
        session = self._of_shard(shard_id)
        assert session.socket is not None
        del self._sessions[session.id]
        await session.socket.send_json({"op": 9, "d": False})
        self._sessions[session.id] = Session(session.id, session.shard)

    async def replay(self, event: dict[str, Any]) -> None:
        """Send an interaction once more, as a resumed session may."""
        await self.dispatch("INTERACTION_CREATE", event)

    # ------------------------------------------------------------------- HTTP

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._answer(request)
        except Hangup:
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        finally:
            self._changed.set()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        asked = await _read(request)
        path = asked.path
        if self.dead:
            raise Hangup
        self.requests.append(asked)
        label = f"{asked.method} {re.sub(r'[0-9]{6,}', 'N', re.sub(r'aW50[^/]+', 'TOKEN', path))}"
        await self._pass(self.before, label)
        fault = next((f for f in self.faults if f.method == asked.method and re.search(f.path, path)), None)
        if fault is not None:
            self.faults.remove(fault)
            if fault.cut == "before":
                raise Hangup
            if not fault.cut:
                return _json(fault.status, fault.body, fault.headers)
        self.complaints += [
            f"{label}: {complaint}" for complaint in faults_of(asked.method, path, asked.body, asked.files)
        ]
        status, body = self._route(asked)
        await self._pass(self.after, label)
        if fault is not None:
            raise Hangup
        return _json(status, body)

    async def _pass(self, hook: Hook | None, label: str) -> None:
        if hook is not None:
            await hook(label)
        if self.dead:
            raise Hangup

    def _route(self, asked: Request) -> tuple[int, Any]:  # noqa: C901, PLR0911 - a table of routes
        parts = asked.path.strip("/").split("/")
        if asked.path.startswith(("/webhooks/", "/interactions/")):
            return self._of_interaction(asked, parts)
        if asked.authorization != f"Bot {TOKEN}":
            return 401, {"message": "401: Unauthorized", "code": 0}
        match [asked.method, *parts]:
            case ["GET", "users", "@me"]:
                return 200, _user(APPLICATION_ID, bot=True)
            case ["GET", "users", user_id]:
                return 200, _user(int(user_id))
            case ["POST", "users", "@me", "channels"]:
                return 200, {"id": asked.body["recipient_id"], "type": 1, "recipients": [_user(OWNER_ID)]}
            case ["GET", "oauth2", "applications", "@me"]:
                return 200, _application()
            case ["GET", "gateway", "bot"]:
                limit = {"total": 1000, "remaining": 999, "reset_after": 1, "max_concurrency": 1}
                return 200, {"url": self.gateway, "shards": self.shards, "session_start_limit": limit}
            case ["PUT", "applications", _, "commands"]:
                return 200, [_command(command) for command in asked.body]
            case ["POST", "channels", channel_id, "messages"]:
                return self._post(asked, int(channel_id))
            case ["PATCH", "channels", _, "messages", message_id]:
                return self._edit(asked, int(message_id))
        return 404, {"message": "404: Not Found", "code": 0}

    def _of_interaction(self, asked: Request, parts: list[str]) -> tuple[int, Any]:
        token = parts[2]
        if token in self.expired:
            return 401, {"message": "Invalid Webhook Token", "code": 50027}
        match [asked.method, *parts]:
            case ["POST", "interactions", interaction_id, _, "callback"]:
                return self._callback(asked, interaction_id, token)
            case ["POST", "webhooks", _, _]:
                return 200, self._payload(self._show(asked, CHANNEL_ID, private=_is_private(asked.body)))
            case [method, "webhooks", _, _, "messages", which] if token in self.answered:
                message_id = self.answered[token] if which == "@original" else int(which)
                if method == "PATCH":
                    return self._edit(asked, message_id)
                if method == "DELETE":
                    self.messages.pop(message_id, None)
                    self.deleted.add(message_id)
                    return 204, None
        return 404, {"message": "Unknown Webhook", "code": 10015}

    def _callback(self, asked: Request, interaction_id: str, token: str) -> tuple[int, Any]:
        if token in self.answered:
            return 400, {"message": "Interaction has already been acknowledged.", "code": 40060}
        kind, data = asked.body["type"], asked.body.get("data") or {}
        told: dict[str, Any] = {"interaction": {"id": interaction_id, "type": 2}}
        self.answered[token] = 0
        if kind == 4:
            message = self._show(asked, CHANNEL_ID, private=_is_private(data), body=data)
            self.answered[token] = message.id
            told["interaction"]["response_message_id"] = str(message.id)
            told["interaction"]["response_message_ephemeral"] = message.private
            told["resource"] = {"type": 4, "message": self._payload(message)}
        return 200, told

    def _post(self, asked: Request, channel_id: int) -> tuple[int, Any]:
        nonce = asked.body.get("nonce")
        if nonce is not None and asked.body.get("enforce_nonce") and (channel_id, str(nonce)) in self._nonces:
            return 200, self._payload(self.messages[self._nonces[channel_id, str(nonce)]])
        message = self._show(asked, channel_id)
        if nonce is not None:
            self._nonces[channel_id, str(nonce)] = message.id
        return 200, self._payload(message)

    def _show(
        self, asked: Request, channel_id: int, *, private: bool = False, body: dict[str, Any] | None = None
    ) -> Message:
        message = Message(self.snowflake(), channel_id, body or asked.body, asked.files, private)
        self.messages[message.id] = message
        return message

    def _edit(self, asked: Request, message_id: int) -> tuple[int, Any]:
        message = self.messages.get(message_id)
        if message is None:
            return 404, {"message": "Unknown Message", "code": 10008}
        message.body = {**message.body, **asked.body}
        message.edits += 1
        if "attachments" in asked.body:
            message.files = asked.files
        return 200, self._payload(message)

    def _payload(self, message: Message) -> dict[str, Any]:
        return {
            "id": str(message.id),
            "channel_id": str(message.channel_id),
            "author": _user(APPLICATION_ID, bot=True),
            "content": message.body.get("content") or "",
            "components": [],
            "attachments": [],
            "embeds": [],
            "mentions": [],
            "mention_roles": [],
            "mention_everyone": False,
            "pinned": False,
            "tts": False,
            "timestamp": "2026-01-01T00:00:00+00:00",
            "edited_timestamp": None,
            "type": 0,
            "flags": message.body.get("flags") or 0,
        }

    async def _cdn(self, request: web.Request) -> web.StreamResponse:
        data = self.attachments.get(request.match_info["id"])
        return web.Response(status=404) if data is None else web.Response(body=data)


def _json(status: int, body: Any, headers: Mapping[str, str] | None = None) -> web.Response:
    """Answer as Discord does: the library looks for exactly this content type."""
    if body is None:
        return web.Response(status=status)
    kind = {"Content-Type": "application/json"}
    return web.Response(status=status, body=json.dumps(body).encode(), headers={**kind, **(headers or {})})


def _is_private(body: dict[str, Any]) -> bool:
    return bool((body.get("flags") or 0) & 64)


async def _read(request: web.Request) -> Request:
    path = "/" + request.path.split("/", 3)[3]
    authorization = request.headers.get("Authorization", "")
    if request.content_type != "multipart/form-data":
        raw = await request.read()
        return Request(request.method, path, json.loads(raw) if raw else None, {}, authorization)
    body, files = None, {}
    async for part in await request.multipart():
        assert isinstance(part, BodyPartReader)
        data = bytes(await part.read())
        if part.name == "payload_json":
            body = json.loads(data)
        else:
            files[part.filename or ""] = data
    return Request(request.method, path, body, files, authorization)


def _user(user_id: int, *, bot: bool = False) -> dict[str, Any]:
    name = "bot" if bot else f"user{user_id % 1000}"
    return {"id": str(user_id), "username": name, "discriminator": "0", "avatar": None, "bot": bot}


def _member(user_id: int) -> dict[str, Any]:
    return {
        "user": _user(user_id),
        "roles": [],
        "joined_at": "2026-01-01T00:00:00+00:00",
        "deaf": False,
        "mute": False,
        "flags": 0,
        "permissions": MEMBER_PERMISSIONS,
    }


def _channel() -> dict[str, Any]:
    return {
        "id": str(CHANNEL_ID),
        "type": 0,
        "name": "pictures",
        "guild_id": str(GUILD_ID),
        "position": 0,
        "permission_overwrites": [],
        "permissions": ALL_PERMISSIONS,
    }


def _guild(guild_id: int) -> dict[str, Any]:
    everyone = {
        "id": str(guild_id),
        "name": "@everyone",
        "permissions": MEMBER_PERMISSIONS,
        "position": 0,
        "color": 0,
        "colors": {"primary_color": 0, "secondary_color": None, "tertiary_color": None},
        "hoist": False,
        "managed": False,
        "mentionable": False,
        "flags": 0,
    }
    return {
        "id": str(guild_id),
        "name": "Server",
        "owner_id": str(OWNER_ID),
        "roles": [everyone],
        "channels": [_channel()],
        "threads": [],
        "members": [],
        "presences": [],
        "voice_states": [],
        "emojis": [],
        "stickers": [],
        "features": [],
        "member_count": 3,
        "premium_tier": 0,
        "verification_level": 0,
        "default_message_notifications": 0,
        "explicit_content_filter": 0,
        "mfa_level": 0,
        "nsfw_level": 0,
        "afk_timeout": 60,
        "system_channel_flags": 0,
        "preferred_locale": "en-US",
        "unavailable": False,
    }


def _application() -> dict[str, Any]:
    return {
        "id": str(APPLICATION_ID),
        "name": "img2img",
        "description": "",
        "icon": None,
        "bot_public": True,
        "bot_require_code_grant": False,
        "verify_key": "00",
        "owner": _user(OWNER_ID),
        "flags": 0,
        "team": None,
    }


def _command(command: dict[str, Any]) -> dict[str, Any]:
    ids = {"id": "1", "application_id": str(APPLICATION_ID), "version": "1"}
    return {"description": "", "default_member_permissions": None, **command, **ids}


@asynccontextmanager
async def open_wire() -> AsyncIterator[Wire]:
    """Serve on a free loopback port until the block ends."""
    wire = Wire()
    app = web.Application(client_max_size=64 << 20)
    app.router.add_get("/gateway/", wire._gateway)
    app.router.add_get("/cdn/{id}", wire._cdn)
    app.router.add_route("*", "/api/v10/{path:.*}", wire._serve)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    wire.url = f"http://127.0.0.1:{port}/api/v10"
    wire.gateway = f"ws://127.0.0.1:{port}/gateway/"
    try:
        yield wire
    finally:
        for session in wire._sessions.values():
            if session.socket is not None:
                await session.socket.close(code=WSCloseCode.GOING_AWAY)
        await runner.cleanup()
