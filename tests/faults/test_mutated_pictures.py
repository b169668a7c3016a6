"""Thousands of broken pictures sent by members: nothing but refusals come out, and nobody has to wait."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from contextlib import aclosing
from pathlib import Path

import pytest

from bot.errors import UnusablePicture
from bot.pictures.pool import NormalPicture, PicturePool
from tests.benchmarks.heartbeat import heartbeat
from tests.support import pictures

MUTATIONS_OF_EACH = 500
CPU_S_MAX = 10
MEMORY_BYTES_MAX = 1 << 30
KINDS = ("PNG", "JPEG", "GIF", "WEBP")


def _seed() -> int:
    """Return the seed of this run: a new one each time, or the one to repeat."""
    return int(os.environ.get("MUTATIONS_SEED", random.SystemRandom().randrange(1 << 32)))


def _wholes(kind: str) -> list[bytes]:
    """Return valid pictures of a kind, plain and peculiar."""
    made = [pictures.encoded(pictures.quarters(), kind), pictures.encoded(pictures.noise(40, 30), kind)]
    if kind == "JPEG":
        made += [
            pictures.encoded(pictures.noise(64, 64), progressive=True),
            pictures.turned(6),
            pictures.with_metadata(),
        ]
    if kind == "PNG":
        made += [pictures.grey16_png(40_000), pictures.grey2_png(transparent=1), pictures.many_frames_png(3)]
    if kind == "GIF":
        made += [pictures.many_frames_gif(5)]
    if kind == "WEBP":
        made += [pictures.many_frames_webp(5)]
    return made


def _peak_bytes(pool: PicturePool) -> list[int]:
    """Return the most address space that each living child has had."""
    children = [*pool._idle, *pool._busy]
    statuses = (Path(f"/proc/{child._process.pid}/status").read_text() for child in children)
    return [int(status.split("VmPeak:")[1].split()[0]) << 10 for status in statuses]


def _cpu_s(pool: PicturePool) -> float:
    """Return the CPU seconds that the living children have used in all."""
    children = [*pool._idle, *pool._busy]
    fields = [
        Path(f"/proc/{child._process.pid}/stat").read_text().rsplit(")", 1)[1].split() for child in children
    ]
    return sum(int(f[11]) + int(f[12]) for f in fields) / os.sysconf("SC_CLK_TCK")


async def _offer(pool: PicturePool, data: bytes) -> NormalPicture | UnusablePicture:
    try:
        return await pool.normalise(data)
    except UnusablePicture as refusal:
        return refusal


def _outcome(answer: NormalPicture | UnusablePicture) -> str:
    if isinstance(answer, UnusablePicture):
        return "lost a child" if "child was lost" in answer.detail else "refused"
    assert pictures.opened(answer.data).size == (answer.width, answer.height)
    return "taken"


@pytest.mark.timeout(300)
async def test_two_thousand_broken_pictures() -> None:
    """Whatever a file is damaged into, it is taken or refused in a sentence, within the children's limits."""
    seed = _seed()
    print(f"\nMUTATIONS_SEED={seed}")
    rng = random.Random(seed)
    wholes = {kind: _wholes(kind) for kind in KINDS}
    broken = [pictures.mutated(rng.choice(wholes[k]), rng) for k in KINDS for _ in range(MUTATIONS_OF_EACH)]
    limits = {"cpu_s_max": CPU_S_MAX, "memory_bytes_max": MEMORY_BYTES_MAX}
    async with aclosing(PicturePool(children=2, **limits)) as pool:
        began = time.perf_counter()
        async with heartbeat() as late:
            answers = await asyncio.gather(*(_offer(pool, data) for data in broken))
        took_s = time.perf_counter() - began
        peaks, cpu_s = _peak_bytes(pool), _cpu_s(pool)
    outcomes = Counter(map(_outcome, answers))
    print(
        f"{len(answers)} broken pictures in {took_s:.0f} s: {dict(outcomes)}; longest stall"
        f" {max(late) * 1000:.0f} ms; children's peak {max(peaks) >> 20} MiB, CPU {cpu_s:.0f} s in all"
    )
    assert sum(outcomes.values()) == len(broken) >= 2_000
    assert max(peaks) <= MEMORY_BYTES_MAX
