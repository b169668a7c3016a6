"""Several backends: when one dies, members hardly notice."""

from dataclasses import replace
from pathlib import Path

from bot.errors import BackendDown
from tests.support.simulated_server import SKETCHING, Sketcher, open_world, texts


async def test_a_job_whose_backend_dies_moves_to_the_next(tmp_path: Path) -> None:
    """A job under way at a backend that fails for good is made by the next one, for one price."""
    first = Sketcher(name="first", errors=[BackendDown()])
    second = Sketcher(name="second", capabilities=replace(SKETCHING, label="The second"))
    async with open_world(tmp_path, backends=[first, second]) as world:
        await world.img2img()
        assert (len(first.calls), len(second.calls)) == (1, 1)
        assert "The second" in texts(world.card)
        assert await world.available() == 38
        await world.img2img()
        assert (len(first.calls), len(second.calls)) == (1, 2)


async def test_a_job_moves_once(tmp_path: Path) -> None:
    """When the next backend fails too, the job ends at no cost instead of wandering on."""
    backends = [Sketcher(name=f"backend {n}", errors=[BackendDown()]) for n in range(3)]
    async with open_world(tmp_path, backends=backends) as world:
        await world.img2img()
        assert [len(backend.calls) for backend in backends] == [1, 1, 0]
        assert "weren't charged" in texts(world.card)
        assert await world.available() == 40


async def test_the_first_is_used_again_when_it_is_back(tmp_path: Path) -> None:
    """After its pause the preferred backend gets the jobs again."""
    first = Sketcher(name="first", errors=[BackendDown()])
    second = Sketcher(name="second")
    async with open_world(tmp_path, backends=[first, second]) as world:
        await world.img2img()
        await world.env.advance_time(60)
        await world.img2img()
        assert (len(first.calls), len(second.calls)) == (2, 1)
