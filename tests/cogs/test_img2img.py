"""`/img2img` from the command to the picture."""

from pathlib import Path

from tests.discord.simulator import open_world, texts


async def test_a_picture_comes_back(tmp_path: Path) -> None:
    """A member who types /img2img gets a card at once and the picture with its buttons in the same message."""
    async with open_world(tmp_path) as world:
        answer = await world.img2img(seed=7)
        print(world.env.transcript())
        message = world.channel.last_message
        print(texts(message))
        assert "seed `7`" in texts(message)
