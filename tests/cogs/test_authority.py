"""Every command × every role × every place: who may do what, and that a refusal changes nothing."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import discord
import pytest
import simcord
from simcord.actors import _dispatch_actor_interaction
from simcord.enums import InteractionType

from bot.actors import Actor, Permission, Person
from bot.errors import JobGone, NotAllowed
from bot.moderation.actions import SetLimits
from tests.support.simulated_server import World, a_picture, open_world

ROLES: Final = ("nobody", "member", "moderator", "moderator elsewhere", "operator")
PLACES: Final = ("own server", "other server")

#: Who each command is for, and options that make it do something. A new command has to be added here.
MANAGER, MEMBER, OPERATOR = "manager", "member", "operator"
COMMANDS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "img2img": (MEMBER, {"image": ("in.png", a_picture((64, 64))), "prompt": "x"}),
    "credits show": (MEMBER, {}),
    "credits give": (MEMBER, {"member": "victim", "amount": 1}),
    "history": (MEMBER, {}),
    "operator": (OPERATOR, {}),
    "quota show": (MANAGER, {"member": "victim"}),
    "quota history": (MANAGER, {}),
    "quota leaderboard": (MANAGER, {}),
    "quota export": (MANAGER, {}),
    "quota set": (MANAGER, {"member": "victim", "allowance": 3}),
    "quota grant": (MANAGER, {"member": "victim", "amount": 5}),
    "quota take": (MANAGER, {"member": "victim", "amount": 5}),
    "quota reset": (MANAGER, {"member": "victim"}),
    "quota freeze": (MANAGER, {"member": "victim", "on": False}),
    "quota block": (MANAGER, {"member": "bystander"}),
    "quota unblock": (MANAGER, {"member": "bystander"}),
    "quota role": (MANAGER, {"role": "role", "allowance": 9}),
    "quota server": (MANAGER, {"steps": 90}),
    "quota channels": (MANAGER, {"channel": "spare", "rule": "forbid"}),
    "calm show": (MANAGER, {}),
    "calm options": (MANAGER, {"private": False}),
    "calm block": (MANAGER, {"text": "gory"}),
    "calm unblock": (MANAGER, {"text": "gory"}),
}
LOOKING: Final = {"show", "history", "leaderboard", "export", "operator"}
REFUSALS: Final = ("You need the Manage Server permission", "Only the bot's owner", "only in a server")
TABLES: Final = (
    "account",
    "transfer",
    "job",
    "guild",
    "member",
    "role_rule",
    "channel_rule",
    "blocked_text",
    "proposal",
    "audit_record",
    "audit_log",
)


@dataclass
class Server:
    """One server with all the roles in it."""

    guild: simcord.GuildHandle
    channel: simcord.ChannelHandle
    spare: simcord.ChannelHandle
    role: simcord.RoleHandle
    actors: dict[str, simcord.MemberActor]

    def options(self, command: str) -> dict[str, Any]:
        """Return the command's options with this server's people and places in them."""
        own = {"role": self.role, "spare": self.spare, **self.actors}
        given = COMMANDS[command][1]
        return {k: own.get(v, v) if isinstance(v, str) else v for k, v in given.items()}


def _server(world: World, name: str, users: dict[str, simcord.UserHandle], *, at_home: bool) -> Server:
    guild = world.env.create_guild(name)
    manages = guild.create_role("Managers", permissions=discord.Permissions(manage_guild=True))
    role = guild.create_role("Painters")
    roles = {"member": [role], "moderator" if at_home else "moderator elsewhere": [manages]}
    actors = {who: guild.add_member(user, roles=roles.get(who, [])) for who, user in users.items()}
    channel, spare = guild.create_text_channel("pictures"), guild.create_text_channel("spare")
    return Server(guild, channel, spare, role, actors)


async def _servers(world: World) -> dict[str, Server]:
    """Return both servers, every command opened to everyone by their admins."""
    users = {who: world.env.create_user(who.replace(" ", "-")) for who in (*ROLES, "victim", "bystander")}
    world.bot.owner_id = users["operator"].id
    servers = {
        "own server": _server(world, "Own", users, at_home=True),
        "other server": _server(world, "Other", users, at_home=False),
    }
    roots = await world.bot.tree.fetch_commands()
    for server in servers.values():
        for root in roots:
            server.guild.set_command_permissions(root.id, dict.fromkeys(server.actors.values(), True))
    return servers


def _leaves(world: World) -> Iterator[str]:
    for command in world.bot.tree.walk_commands(type=discord.AppCommandType.chat_input):
        if not isinstance(command, discord.app_commands.Group):
            yield command.qualified_name


async def _snapshot(world: World) -> dict[str, list[tuple[Any, ...]]]:
    def unit(tx: Any) -> dict[str, list[tuple[Any, ...]]]:
        return {
            table: [tuple(row) for row in tx.execute(f"SELECT * FROM {table}")]  # noqa: S608 - names above
            for table in TABLES
        }

    return await world.app.db.read(unit)


def _may(command: str, role: str, place: str) -> bool:
    needs = COMMANDS[command][0]
    manages = {("moderator", "own server"), ("moderator elsewhere", "other server")}
    return (
        needs == MEMBER
        or (needs == OPERATOR and role == "operator")
        or (needs == MANAGER and (role, place) in manages)
    )


def _words(answer: simcord.InteractionResult) -> str:
    return (answer.response.content or "") if answer.response else ""


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("role", ROLES)
async def test_who_may_do_what(tmp_path: Path, role: str, place: str) -> None:
    """Whoever may not is refused and changes nothing, though the server opened all commands."""
    async with open_world(tmp_path) as world:
        servers = await _servers(world)
        server = servers[place]
        assert set(_leaves(world)) == set(COMMANDS)
        for command in COMMANDS:
            before = await _snapshot(world)
            answer = await server.actors[role].slash(server.channel, command, **server.options(command))
            refused = any(words in _words(answer) for words in REFUSALS)
            assert refused is not _may(command, role, place), (command, _words(answer))
            after = await _snapshot(world)
            if refused:
                assert answer.ephemeral, command
                assert after == before, command
            elif COMMANDS[command][0] == MANAGER and command.split()[-1] not in LOOKING:
                assert after != before, (command, _words(answer))
        await _others_untouched(world, servers, place)
        assert await world.ledger_faults() == []


async def _others_untouched(world: World, servers: dict[str, Server], place: str) -> None:
    other = next(server for name, server in servers.items() if name != place)
    for table in ("job", "member", "role_rule", "channel_rule", "blocked_text", "audit_record", "audit_log"):
        count = await world.app.db.read(
            lambda tx, table=table: tx.execute(  # type: ignore[misc]  # a default binds the table
                f"SELECT count(*) FROM {table} WHERE guild_id = ?",  # noqa: S608 - names above
                (other.guild.id,),
            ).fetchone()[0]
        )
        assert count == 0, table


@pytest.mark.parametrize("role", ROLES)
async def test_nothing_is_done_in_direct_messages(tmp_path: Path, role: str) -> None:
    """In a direct message no command is offered; one sent all the same changes nothing."""
    async with open_world(tmp_path) as world:
        user = (await _servers(world))["own server"].actors[role].user
        assert user.available_commands() == ()
        for command, (needs, options) in COMMANDS.items():
            if needs == OPERATOR or not _is_plain(options):
                continue  # the owner's is no server's; people and files can't be named there at all
            before = await _snapshot(world)
            answer = await _forged(world, user, command, options)
            assert answer.acknowledged, command
            assert answer.ephemeral, command
            assert any(words in _words(answer) for words in REFUSALS), (command, _words(answer))
            assert await _snapshot(world) == before, command


def _is_plain(options: dict[str, Any]) -> bool:
    entities = ("victim", "bystander", "role", "spare")
    return not any(isinstance(value, tuple) or value in entities for value in options.values())


async def _forged(
    world: World, user: simcord.UserHandle, command: str, options: dict[str, Any]
) -> simcord.InteractionResult:
    """Send a command in a direct message past Discord's own checks, with its plain options."""
    name, *rest = command.split()
    kinds = {str: 3, int: 4, bool: 5}
    plain = [{"name": key, "type": kinds[type(value)], "value": value} for key, value in options.items()]
    leaf = [{"name": rest[0], "type": 1, "options": plain}] if rest else plain
    root = world.env.backend.find_command(name, None, type=1)
    assert root is not None
    data = {"id": root["id"], "name": name, "type": 1, "options": leaf}
    return await _dispatch_actor_interaction(user, InteractionType.APPLICATION_COMMAND, user.dm_channel, data)


async def test_a_proposal_is_confirmed_only_where_and_by_whom_it_was_made(tmp_path: Path) -> None:
    """An action is confirmed neither in another server, nor by another moderator, nor too late."""
    async with open_world(tmp_path) as world:
        moderation, proposal = world.app.moderation, 5
        guild_id, manages = world.guild.id, frozenset({Permission.MANAGE_SERVER})
        moderator = Person(guild_id, world.moderator.id, permissions=manages)
        await moderation.perform(Actor(proposal, moderator), SetLimits(settings={"steps_max": 5}))
        before = await _snapshot(world)
        with pytest.raises(NotAllowed):
            await moderation.confirm(proposal, Person(guild_id, world.alice.id, permissions=manages))
        with pytest.raises(NotAllowed):
            await moderation.confirm(proposal, Person(guild_id, world.moderator.id))
        with pytest.raises(JobGone):
            await moderation.confirm(proposal, Person(guild_id + 1, moderator.user_id, permissions=manages))
        await world.env.advance_time(16 * 60)
        with pytest.raises(JobGone, match="too late"):
            await moderation.confirm(proposal, moderator)
        assert await _snapshot(world) == before
