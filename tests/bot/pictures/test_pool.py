"""The pool of decoder children: what backends send, limits, cancellation, the end."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from contextlib import aclosing
from pathlib import Path

import pytest
from PIL import Image

from bot.errors import BackendUnsure, BotError, UnusablePicture
from bot.pictures.pool import NormalPicture, PicturePool
from tests.support import pictures
from tests.support.pictures import BLUE, GREEN, RED, YELLOW, encoded, is_near, opened

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = str(Path(__file__).resolve().parents[3])
QUARTERS = [RED, GREEN, BLUE, YELLOW]
HTML = b"<!doctype html><html><body>Bad gateway</body></html>"


def pids(pool: PicturePool) -> set[int]:
    """Return the process ids of the children that wait for a picture."""
    return {child._process.pid for child in pool._idle}


def proc_file(pid: int, name: str) -> str:
    """Return the text of a process's file `name` in /proc, nothing where there is none."""
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except FileNotFoundError:
        return ""


def is_running(pid: int) -> bool:
    """Return whether a process runs; one that has ended and not been reaped does not."""
    stat = proc_file(pid, "stat")
    return bool(stat) and stat.rpartition(") ")[2][0] != "Z"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
async def test_results_keep_their_size(pool: PicturePool, kind: str) -> None:
    """A backend's picture is stored and shown at the size it came in."""
    normal = await pool.accept_result(encoded(pictures.quarters(902, 600), kind))
    assert (normal.width, normal.height) == (902, 600)
    assert pictures.corners(opened(normal.data)) == QUARTERS


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(HTML, id="html"),
        pytest.param(b'{"error": "out of memory"}', id="json"),
        pytest.param(encoded(pictures.quarters(), "GIF"), id="gif"),
        pytest.param(encoded(pictures.noise(99, 99))[:3000], id="half a picture"),
        pytest.param(pictures.dimension_bomb(), id="bomb"),
        pytest.param(pictures.scan_bomb(), id="scan bomb"),
        pytest.param(encoded(Image.new("L", (4097, 4097)), "PNG"), id="more than was asked for"),
        pytest.param(encoded(Image.new("RGB", (1, 1)), "PNG"), id="one pixel"),
    ],
)
async def test_rubbish_from_a_backend_is_the_backends_failure(pool: PicturePool, data: bytes) -> None:
    """When a backend sends no picture, no member's picture is blamed, and the job may be tried again."""
    with pytest.raises(BackendUnsure, match="You weren't charged") as failure:
        await pool.accept_result(data)
    assert failure.value.detail


async def test_a_picture_that_eats_memory_costs_only_itself() -> None:
    """A picture that needs more memory than allowed is refused and the next one is opened."""
    async with aclosing(PicturePool(children=1, memory_bytes_max=150 << 20)) as pool:
        with pytest.raises(UnusablePicture, match="too much memory or time"):
            await pool.normalise(pictures.heavy_png())
        assert (await pool.normalise(encoded(pictures.quarters()))).width


async def test_a_picture_that_eats_cpu_costs_only_itself() -> None:
    """A picture that works the CPU for longer than allowed is refused and the next one is opened."""
    async with aclosing(PicturePool(children=1, cpu_s_max=1)) as pool:
        with pytest.raises(UnusablePicture, match="too much memory or time") as refusal:
            await pool.normalise(pictures.slow_bomb())
        assert "IncompleteReadError" in refusal.value.detail
        assert (await pool.normalise(encoded(pictures.quarters()))).width


async def test_every_picture_gets_its_own_cpu_time() -> None:
    """Many pictures that together take longer than one may are all opened, by the same child."""
    data = encoded(pictures.noise(2400, 1800), "PNG", compress_level=0)
    async with aclosing(PicturePool(children=1, cpu_s_max=1)) as pool:
        await pool.normalise(data)
        first = pids(pool)
        for _ in range(15):
            await pool.normalise(data)
        assert pids(pool) == first


async def test_a_picture_that_takes_too_long_costs_only_itself() -> None:
    """A picture that is not open in time is refused and the next one is opened."""
    async with aclosing(PicturePool(children=1, timeout_s=3)) as pool:
        with pytest.raises(UnusablePicture, match="too much memory or time") as refusal:
            await pool.normalise(pictures.slow_bomb())
        assert "TimeoutError" in refusal.value.detail
        assert (await pool.normalise(encoded(pictures.quarters()))).width


async def test_a_bad_child_under_a_result_is_the_backends_failure() -> None:
    """A backend's picture that can't be opened within the limits may be asked for again."""
    async with aclosing(PicturePool(children=1, memory_bytes_max=60 << 20)) as pool:
        with pytest.raises(BackendUnsure):
            await pool.accept_result(pictures.heavy_png(4000))


async def test_a_child_killed_between_pictures_is_replaced() -> None:
    """When a waiting child is killed from outside, the next picture is opened by a new one."""
    async with aclosing(PicturePool(children=1)) as pool:
        before = await pool.normalise(encoded(pictures.quarters()))
        (child,) = pool._idle
        os.kill(child._process.pid, signal.SIGKILL)
        await child.wait()
        assert await pool.normalise(encoded(pictures.quarters())) == before


async def test_nobody_gets_the_picture_of_somebody_who_left() -> None:
    """A request given up at any moment leaves the next one with its own picture."""
    rng = random.Random(0)
    big = encoded(pictures.noise(900, 900), "PNG", compress_level=0)
    small = encoded(pictures.quarters())
    async with aclosing(PicturePool(children=1)) as pool:
        expected = await pool.normalise(small)
        for _ in range(8):
            given_up = asyncio.create_task(pool.normalise(big))
            await asyncio.sleep(rng.random() * 0.04)
            given_up.cancel()
            assert await pool.normalise(small) == expected
            await asyncio.wait([given_up])


async def test_waiting_can_be_given_up() -> None:
    """A request cancelled while it waits for a child lets the others go on."""
    async with aclosing(PicturePool(children=1)) as pool:
        tasks = [asyncio.create_task(pool.normalise(encoded(pictures.quarters()))) for _ in range(4)]
        await asyncio.sleep(0)
        tasks[2].cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(done[2], asyncio.CancelledError)
    assert all(isinstance(one, NormalPicture) for one in done[:2] + done[3:])


async def test_twenty_pictures_at_once_share_two_children() -> None:
    """Twenty pictures at once all come back, each its own, from no more than two children."""
    shades = [(index * 12, 255 - index * 12, 90) for index in range(20)]
    async with aclosing(PicturePool(children=2)) as pool:
        normals = await asyncio.gather(
            *(pool.normalise(encoded(Image.new("RGB", (64, 64), shade), "PNG")) for shade in shades)
        )
        assert len(pids(pool)) == 2
    assert all(
        is_near(pictures.middle(opened(normal.data)), shade)
        for normal, shade in zip(normals, shades, strict=True)
    )


async def test_pictures_are_opened_in_the_order_they_came() -> None:
    """Whoever waits for a child is served in turn."""
    order: list[int] = []

    async def ask(one: PicturePool, index: int) -> None:
        await one.normalise(encoded(pictures.quarters()))
        order.append(index)

    async with aclosing(PicturePool(children=1)) as pool:
        await asyncio.gather(*(ask(pool, index) for index in range(8)))
    assert order == list(range(8))


async def test_nothing_runs_between_pictures() -> None:
    """A pool at rest has no task of its own, so that a simulator can wait for all to end."""
    before = asyncio.all_tasks()
    async with aclosing(PicturePool()) as pool:
        await asyncio.gather(*(pool.normalise(encoded(pictures.quarters())) for _ in range(3)))
        assert asyncio.all_tasks() <= before


async def test_closing_ends_every_child() -> None:
    """After closing no child is left and pictures are refused without blaming them."""
    pool = PicturePool()
    await asyncio.gather(*(pool.normalise(encoded(pictures.quarters())) for _ in range(3)))
    running = pids(pool)
    await pool.aclose()
    await pool.aclose()
    assert running
    assert not any(is_running(pid) for pid in running)
    with pytest.raises(BotError) as refusal:
        await pool.normalise(encoded(pictures.quarters()))
    assert not isinstance(refusal.value, UnusablePicture)


async def test_closing_does_not_wait_for_a_slow_picture() -> None:
    """A picture still being opened when the bot ends fails without being called unusable."""
    pool = PicturePool(children=1)
    slow = asyncio.create_task(pool.normalise(pictures.slow_bomb()))
    await asyncio.sleep(0.5)
    await pool.aclose()
    (failure,) = await asyncio.gather(slow, return_exceptions=True)
    assert type(failure) is BotError


async def test_a_child_that_can_t_start_is_not_the_pictures_fault() -> None:
    """When no child starts, the member is asked to come back, not to change the picture."""
    async with aclosing(PicturePool(memory_bytes_max=1 << 80)) as pool:
        with pytest.raises(BotError, match="try again in a minute") as failure:
            await pool.normalise(encoded(pictures.quarters()))
    assert not isinstance(failure.value, UnusablePicture)
    assert failure.value.detail


async def test_a_child_knows_no_secrets_and_has_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child has no token in its environment, writes no file, dumps no core and is bounded in memory."""
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)  # with it, a child may write files
    monkeypatch.setenv("IMG2IMG_DISCORD_TOKEN", "planted-token")
    async with aclosing(PicturePool(children=1)) as pool:
        await pool.normalise(encoded(pictures.quarters()))
        (pid,) = pids(pool)
        assert "planted-token" not in proc_file(pid, "environ")
        lines = proc_file(pid, "limits").splitlines()
    limits = {line[:25].strip(): line.split()[-3:-1] for line in lines}
    assert limits["Max core file size"] == ["0", "0"]
    assert limits["Max file size"] == ["0", "0"]
    assert limits["Max address space"] == [str(1 << 30)] * 2
    assert int(limits["Max open files"][0]) <= 16


ORPHAN = """
import asyncio, os, signal, sys
from pathlib import Path
from bot.pictures.pool import PicturePool

async def main():
    pool = PicturePool(children=1)
    await pool.normalise(Path(sys.argv[1]).read_bytes())
    print(pool._idle[0]._process.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_children_end_with_the_bot(tmp_path: Path) -> None:
    """When the bot is killed outright, in whatever folder it ran, its children end too."""
    (tmp_path / "picture.jpg").write_bytes(encoded(pictures.quarters()))
    bot = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", ORPHAN, "picture.jpg"),
        stdout=asyncio.subprocess.PIPE,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ROOT},
    )
    out, _ = await bot.communicate()
    assert bot.returncode == -signal.SIGKILL
    while is_running(int(out)):  # noqa: ASYNC110 - another process ends, there is no event for it
        await asyncio.sleep(0.02)
