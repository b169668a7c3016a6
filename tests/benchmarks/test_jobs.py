"""How fast requests are accepted durably and jobs are finished, without Discord in between."""

import asyncio
import os
import platform
import statistics
import time
from pathlib import Path

import pytest

from bot.actors import Person
from bot.app import App, open_app
from bot.clock import SystemClock
from bot.events import Event, JobRendered
from bot.jobs.inputs import PictureSource
from bot.jobs.service import RequestContext
from bot.params import Img2ImgParams
from bot.settings import bare_settings
from tests.benchmarks.heartbeat import heartbeat
from tests.support.simulated_server import Sketcher, a_picture

REQUESTS = 500


@pytest.mark.benchmark
async def test_five_hundred_requests_at_once(tmp_path: Path) -> None:
    """Print the time until a request is accepted (committed to disk) and until its picture is stored."""
    picture = a_picture((512, 512), "JPEG")

    async def fetch(_: str) -> bytes:
        return picture

    settings = bare_settings(data_dir=tmp_path, guild_running_max=64, waiting_max=2 * REQUESTS)
    async with open_app(settings, fetch=fetch, clock=SystemClock(), backends=[Sketcher()]) as app:
        rendered = asyncio.Event()
        left = REQUESTS

        def on_event(event: Event) -> None:
            nonlocal left
            left -= isinstance(event, JobRendered)
            if not left:
                rendered.set()

        app.events.subscribe(on_event)
        began = time.perf_counter()
        async with heartbeat() as late:
            accepted = sorted(await asyncio.gather(*(_submit(app, n) for n in range(1, REQUESTS + 1))))
            await rendered.wait()
        took = time.perf_counter() - began
    print(f"\n{REQUESTS} requests at once, 50 servers, on {platform.processor() or platform.machine()}")
    print(f"  {os.cpu_count()} cores, Python {platform.python_version()}, durable commits, instant backend")
    p50, p99 = statistics.median(accepted), accepted[-REQUESTS // 100]
    print(f"  accepted: p50 {p50 * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms")
    print(f"  finished: {REQUESTS / took:.0f} jobs a second, each decoded, checked and stored with fsync")
    print(f"  longest stall of the event loop: {max(late) * 1e3:.0f} ms")
    assert left == 0


async def _submit(app: App, number: int) -> float:
    began = time.perf_counter()
    request = RequestContext(
        id=number,
        person=Person(number % 50, 10_000 + number),
        channel_id=1,
        token="t",
        token_expires_at=0,
    )
    params = Img2ImgParams(prompt="a harbour", seed=number)
    await app.jobs.submit(request, params, PictureSource("https://cdn.discordapp.com/x.jpg"))
    return time.perf_counter() - began
