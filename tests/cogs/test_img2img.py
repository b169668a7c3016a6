"""`/img2img`, its message command and its buttons, on the simulated Discord."""

import asyncio
import hashlib
import io
import re
from dataclasses import replace
from pathlib import Path

import discord
import pytest
from PIL import Image

from bot.actors import Person
from bot.errors import BackendRefused, BackendUnsure, NotAllowed
from bot.gateway.interactions import BROKEN
from db import jobs
from tests.support.simulated_server import SKETCHING, Sketcher, a_picture, open_world, said, texts


def seeds(message: discord.Message) -> list[str]:
    """Return the seeds that a result card shows."""
    return re.findall(r"`(\d+)`", texts(message))


async def pictures(message: discord.Message) -> list[bytes]:
    """Return the bytes of a card's pictures."""
    return [await attachment.read() for attachment in message.attachments]


async def test_a_picture_comes_back_in_the_card(tmp_path: Path) -> None:
    """A member gets a card at once and the picture, its seed and its price in the same message."""
    async with open_world(tmp_path) as world:
        answer = await world.img2img(seed=7)
        message = world.card
        assert message.id == said(answer).id
        assert not answer.deferred
        assert "seed `7`" in texts(message)
        assert "2 credits" in texts(message)
        assert len(await pictures(message)) == 1
        assert await world.available() == 38
        assert await world.ledger_faults() == []


async def test_a_random_seed_is_chosen_and_shown(tmp_path: Path) -> None:
    """A member who gives no seed can still make the same picture again from what the card says."""
    async with open_world(tmp_path) as world:
        await world.img2img()
        first = world.card
        await world.img2img(seed=int(seeds(first)[0]))
        assert await pictures(first) == await pictures(world.card)


async def test_the_backend_gets_what_was_asked(tmp_path: Path) -> None:
    """Every option reaches the backend, and the source's aspect ratio is kept."""
    sketcher = Sketcher()
    async with open_world(tmp_path, backends=[sketcher]) as world:
        await world.img2img(
            image=("in.png", a_picture((600, 300))),
            negative_prompt="fog",
            strength=0.4,
            steps=30,
            guidance=7.5,
            seed=1,
            samples=2,
            sampler="euler",
            scheduler="beta",
        )
        params, image = sketcher.calls[0]
        assert params.model_dump() == {
            "prompt": "a harbour at dawn",
            "negative_prompt": "fog",
            "num_inference_steps": 30,
            "guidance_scale": 7.5,
            "seed": 1,
            "samples": 2,
            "strength": 0.4,
            "sampler": "euler",
            "scheduler": "beta",
        }
        width, height = Image.open(io.BytesIO(image)).size
        assert abs(width / height - 2) < 0.1


async def test_four_samples_come_with_a_choice(tmp_path: Path) -> None:
    """With several pictures, a member chooses which one to vary."""
    sketcher = Sketcher()
    async with open_world(tmp_path, backends=[sketcher]) as world:
        await world.img2img(samples=4, seed=10)
        message = world.card
        assert len(message.attachments) == 4
        assert seeds(message) == ["10", "11", "12", "13"]
        third = (await pictures(message))[2]
        await world.alice.click(message, custom_id=_button(message, "vary_strong", 2))
        assert sketcher.calls[-1][1] == await world.app.store.get(_digest(third))
        assert len(world.card.attachments) == 1


def _button(message: discord.Message, operation: str, sample: int | None = None) -> str:
    suffix = "" if sample is None else f":{sample}"
    for component in _walk(message.components):
        custom_id = getattr(component, "custom_id", None) or ""
        if custom_id.startswith(f"i2i:{operation}:") and custom_id.endswith(suffix):
            return custom_id
    raise AssertionError(f"no {operation} button")


def _walk(components: object) -> list[object]:
    found = []
    for component in components:  # type: ignore[attr-defined]  # a list of components
        found += [component, *_walk(getattr(component, "children", ()))]
    return found


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def test_reroll_keeps_everything_but_the_seed(tmp_path: Path) -> None:
    """Reroll makes another picture from the same input and options and costs the same."""
    sketcher = Sketcher()
    async with open_world(tmp_path, backends=[sketcher]) as world:
        await world.img2img(seed=1, strength=0.4)
        first = world.card
        await world.alice.click(first, label="Reroll")
        (params, image), (again, same_image) = sketcher.calls
        assert again == params.with_seed(again.seed)
        assert again.seed != params.seed
        assert same_image == image
        assert world.card.id != first.id
        assert "Reroll of [this picture]" in texts(world.card)
        assert await world.available() == 36


@pytest.mark.parametrize(("label", "strength"), [("Vary (subtle)", 0.35), ("Vary (strong)", 0.75)])
async def test_a_variation_starts_from_the_result(tmp_path: Path, label: str, strength: float) -> None:
    """A variation takes the picture that was made as its input, near or far from it."""
    sketcher = Sketcher()
    async with open_world(tmp_path, backends=[sketcher]) as world:
        await world.img2img(seed=1)
        result = (await pictures(world.card))[0]
        await world.alice.click(world.card, label=label)
        params, image = sketcher.calls[-1]
        assert (params.strength, image) == (strength, result)


async def test_only_the_requester_may_go_on_from_a_picture(tmp_path: Path) -> None:
    """Another member who presses a button is asked to make their own, and pays nothing."""
    async with open_world(tmp_path) as world:
        await world.img2img()
        message = world.card
        for label in ("Reroll", "Vary (subtle)", "Delete"):
            refused = await world.bob.click(message, label=label)
            assert refused.ephemeral
            assert "Only the member who asked" in said(refused).content
        assert await world.available(world.bob) == 40
        assert world.card.id == message.id


@pytest.mark.parametrize("who", ["alice", "moderator"])
async def test_delete_removes_the_picture(tmp_path: Path, who: str) -> None:
    """The requester and moderators can take a picture away; its history forgets it."""
    async with open_world(tmp_path) as world:
        await world.img2img()
        await getattr(world, who).click(world.card, label="Delete")
        assert world.seen_by_all() is None
        answer = await world.alice.slash(world.channel, "history")
        assert "Nothing here yet" in texts(said(answer))


@pytest.mark.parametrize("who", ["alice", "moderator"])
async def test_a_waiting_job_can_be_cancelled(tmp_path: Path, who: str) -> None:
    """Cancel takes a waiting job out of line, and its hold is given back."""
    sketcher = Sketcher()
    async with open_world(tmp_path, backends=[sketcher], member_running_max=1) as world:
        sketcher.gate = asyncio.get_running_loop().create_future()
        await world.img2img()
        await world.img2img()
        message = world.card
        await getattr(world, who).click(message, label="Cancel")
        assert "Cancelled" in texts(world.card)
        assert await world.available() == 40 - 4
        sketcher.gate.set_result(None)
        await world.env.settle()
        assert len(sketcher.calls) == 1
        assert await world.ledger_faults() == []


@pytest.mark.parametrize("state", ["waiting", "running"])
@pytest.mark.parametrize("who", ["alice", "moderator"])
async def test_cancelling_twice_is_calm(tmp_path: Path, state: str, who: str) -> None:
    """Two presses at the same moment cancel once; neither is told that it is too late."""
    sketcher = Sketcher()
    async with open_world(tmp_path, backends=[sketcher], member_running_max=1) as world:
        sketcher.gate = asyncio.get_running_loop().create_future()
        await world.img2img()
        if state == "waiting":
            await world.img2img()
        message = world.card
        with world.burst():
            presses = [await getattr(world, who).click(message, label="Cancel") for _ in range(2)]
        await world.env.settle()
        for press in presses:
            assert not press.followups
            assert said(press).id == message.id
        assert "Cancelled" in texts(world.card)
        sketcher.gate.set_result(None)
        await world.env.settle()
        assert await world.available() == (38 if state == "waiting" else 40)
        assert await world.ledger_faults() == []


async def test_what_can_not_be_cancelled_says_so_each_time(tmp_path: Path) -> None:
    """Where the backend can't stop, both presses get the same sentence, and the picture comes."""
    sketcher = Sketcher(capabilities=replace(SKETCHING, can_cancel=False))
    async with open_world(tmp_path, backends=[sketcher], member_running_max=1) as world:
        await world.img2img()
        made = world.card
        sketcher.gate = asyncio.get_running_loop().create_future()
        await world.alice.click(made, label="Reroll")
        with world.burst():
            # The card was shown while it waited, when Cancel was on it.
            job = (await world.app.db.read(jobs.list_unfinished))[0]
            answers = [
                pytest.raises(NotAllowed, match="too late to cancel: the picture is already being made")
                for _ in range(2)
            ]
            for answer in answers:
                with answer:
                    await world.app.jobs.cancel(Person(world.guild.id, world.alice.id), job.id)
        sketcher.gate.set_result(None)
        await world.env.settle()
        assert len(seeds(world.card)) == 1


@pytest.mark.parametrize("who", ["alice", "moderator"])
async def test_deleting_twice_is_calm(tmp_path: Path, who: str) -> None:
    """Two presses at the same moment delete the picture; nobody reads of an error."""
    async with open_world(tmp_path) as world:
        await world.img2img()
        message = world.card
        with world.burst():
            presses = [await getattr(world, who).click(message, label="Delete") for _ in range(2)]
        await world.env.settle()
        assert world.seen_by_all() is None
        for press in presses:
            assert BROKEN not in [note.content for note in press.followups]
            assert press.response is None or press.response.content != BROKEN


async def test_a_running_job_is_stopped_where_the_backend_can(tmp_path: Path) -> None:
    """Cancel stops the work itself, and costs nothing."""
    sketcher = Sketcher()
    async with open_world(tmp_path, backends=[sketcher]) as world:
        sketcher.gate = asyncio.get_running_loop().create_future()
        await world.img2img()
        await world.alice.click(world.card, label="Cancel")
        assert sketcher.cancelled == 1
        assert "Cancelled" in texts(world.card)
        assert await world.available() == 40
        sketcher.gate.cancel()


async def test_a_stranger_can_not_cancel(tmp_path: Path) -> None:
    """Nobody stops another member's picture."""
    sketcher = Sketcher()
    async with open_world(tmp_path, backends=[sketcher]) as world:
        sketcher.gate = asyncio.get_running_loop().create_future()
        await world.img2img()
        refused = await world.bob.click(world.card, label="Cancel")
        assert "Only the member who asked" in said(refused).content
        sketcher.gate.set_result(None)
        await world.env.settle()
        assert len(seeds(world.card)) == 1


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (BackendRefused(), "change an option"),
        (RuntimeError("a bug"), "Something went wrong"),
    ],
)
async def test_a_failed_job_costs_nothing_and_says_so(tmp_path: Path, error: Exception, words: str) -> None:
    """When no picture comes of it, the card says why and that nothing was paid."""
    async with open_world(tmp_path, backends=[Sketcher(errors=[error])]) as world:
        await world.img2img()
        text = texts(world.card)
        assert words in text
        assert "weren't charged" in text
        assert await world.available() == 40
        assert await world.ledger_faults() == []


async def test_an_unsure_answer_is_tried_once_more(tmp_path: Path) -> None:
    """After an answer that got lost, the picture still comes, and the member pays once."""
    sketcher = Sketcher(errors=[BackendUnsure()])
    async with open_world(tmp_path, backends=[sketcher]) as world:
        await world.img2img()
        assert len(sketcher.calls) == 2
        assert len(seeds(world.card)) == 1
        assert await world.available() == 38


async def test_a_provider_is_not_called_a_third_time(tmp_path: Path) -> None:
    """Two lost answers are enough: the job fails and costs nothing."""
    sketcher = Sketcher(errors=[BackendUnsure(), BackendUnsure()])
    async with open_world(tmp_path, backends=[sketcher]) as world:
        await world.img2img()
        assert len(sketcher.calls) == 2
        assert "didn't answer" in texts(world.card)
        assert await world.available() == 40


async def test_a_failed_job_can_be_tried_again(tmp_path: Path) -> None:
    """One press repeats what failed."""
    sketcher = Sketcher(errors=[BackendRefused()])
    async with open_world(tmp_path, backends=[sketcher]) as world:
        await world.img2img()
        await world.alice.click(world.card, label="Try again")
        assert len(seeds(world.card)) == 1


async def test_too_many_waiting_is_a_clear_sentence(tmp_path: Path) -> None:
    """A member with a full line is told so, and pays nothing for it."""
    sketcher = Sketcher()
    async with open_world(tmp_path, backends=[sketcher], member_running_max=1, member_waiting_max=2) as world:
        sketcher.gate = asyncio.get_running_loop().create_future()
        for _ in range(3):
            await world.img2img()
        refused = await world.img2img()
        assert refused.ephemeral
        assert "You already have 2 pictures waiting" in said(refused).content
        assert await world.available() == 40 - 3 * 4
        sketcher.gate.set_result(None)
        await world.env.settle()


async def test_a_prompt_pings_nobody_and_formats_nothing(tmp_path: Path) -> None:
    """Whatever a prompt contains, it is shown as the plain text that it is."""
    nasty = "@everyone <@123456789012345678> **bold** [click](https://evil.example) # `code` \u202eoverride"
    async with open_world(tmp_path) as world:
        await world.img2img(prompt=nasty)
        text = texts(world.card)
        assert "@everyone" not in text
        assert "<@123456789012345678>" not in text
        assert "**bold**" not in text
        assert "](https://" not in text
        assert "\u202e" not in text
        for entry in world.env.http_requests:
            if entry.method in {"POST", "PATCH"} and isinstance(entry.json, dict):
                body = entry.json.get("data", entry.json)
                assert not body.get("components") or body["allowed_mentions"] == {"parse": []}


async def test_private_is_seen_by_the_requester_alone(tmp_path: Path) -> None:
    """A private picture appears to nobody else."""
    async with open_world(tmp_path) as world:
        answer = await world.img2img(private=True, seed=3)
        assert answer.ephemeral
        assert "seed `3`" in texts(said(answer))
