from __future__ import annotations

import asyncio
import os
import resource
import signal
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from bot.backends.gpu_process import _ALLOWED_ENVIRONMENT
from bot.runtime.child_process import CHILD_LOST, ChildProcess, scrubbed_environment
from bot.runtime.frames import BrokenFrame
from bot.settings import Settings
from tests.support.child import ECHO, ENVIRONMENT, FAIL, FLOOD, SLEEP

BYTES_MAX = {ECHO: 8 << 20, ENVIRONMENT: 1 << 20}
SECRETS = [
    *(f"IMG2IMG_{name.upper()}" for name in Settings.model_fields),
    *("DISCORD_TOKEN", "SEGMIND_API_KEY", "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "SSH_AUTH_SOCK"),
]


def open_files() -> int:
    """Return how many files, pipes and sockets this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def is_there(child: ChildProcess) -> bool:
    """Return whether the system still knows the child, running or not yet reaped."""
    return Path(f"/proc/{child._process.pid}").exists()


@pytest.fixture
async def child() -> AsyncIterator[ChildProcess]:
    """Give a child that serves frames; when its test is done neither it nor an open pipe is left."""
    child = await ChildProcess.start("tests.support.child", stderr=PIPE)
    yield child
    child.kill()
    await child.end()
    assert not is_there(child)


async def get(child: ChildProcess, kind: bytes, payload: bytes = b"") -> bytes:
    """Send a frame and return the answer's payload."""
    await child.send(kind, payload)
    return (await child.receive(BYTES_MAX))[1]


@pytest.mark.parametrize("allow", [(), _ALLOWED_ENVIRONMENT], ids=["pictures and painter", "gpu server"])
def test_no_token_or_key_reaches_a_child(monkeypatch: pytest.MonkeyPatch, allow: tuple[str, ...]) -> None:
    """Whatever the bot's environment holds, no child is given one of its settings or anybody's secrets."""
    for name in SECRETS:
        monkeypatch.setenv(name, "planted-secret")
    environment = scrubbed_environment(allow)
    assert "planted-secret" not in environment.values()
    assert "PATH" in environment


def test_only_the_gpu_server_gets_what_its_hub_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names and patterns that a child needs are let through for that child alone."""
    monkeypatch.setenv("HF_TOKEN", "for gated weights")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert not {"HF_TOKEN", "CUDA_VISIBLE_DEVICES"} & set(scrubbed_environment())
    assert {"HF_TOKEN", "CUDA_VISIBLE_DEVICES"} <= set(scrubbed_environment(_ALLOWED_ENVIRONMENT))


async def test_the_system_hands_a_child_no_more_than_that(child: ChildProcess) -> None:
    """A child's real environment holds where Python is, and nothing else."""
    names = set((await get(child, ENVIRONMENT)).decode().splitlines())
    own = {
        "LC_CTYPE",
        "COVERAGE_PROCESS_CONFIG",
    }  # Python's own, and the test run's where coverage is measured
    assert names - own <= {"PATH", "LD_LIBRARY_PATH", "PYTHONPATH"}


async def test_large_frames_go_both_ways(child: ChildProcess) -> None:
    """Frames larger than any pipe come back whole, one after another, an empty one too."""
    for payload in (os.urandom(5 << 20), b"", b"short"):
        assert await get(child, ECHO, payload) == payload


async def test_the_event_loop_goes_on_while_a_frame_is_sent(child: ChildProcess) -> None:
    """Other work gets its turn between the parts of a large frame."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await get(child, ECHO, bytes(5 << 20))
    counting.cancel()
    with suppress(asyncio.CancelledError):
        await counting
    assert turns > 50


async def test_a_frame_that_is_too_long_is_not_read(child: ChildProcess) -> None:
    """What a child sends is bounded by what was asked for, whatever it promises."""
    await child.send(ECHO, bytes(100))
    with pytest.raises(BrokenFrame):
        await child.receive({ECHO: 99})


async def test_a_frame_of_another_kind_is_refused(child: ChildProcess) -> None:
    """A child that answers something else is not believed."""
    await child.send(ECHO, b"")
    with pytest.raises(BrokenFrame):
        await child.receive({ENVIRONMENT: 1 << 20})


async def test_a_dead_child_is_reported_with_its_last_words(child: ChildProcess) -> None:
    """When a child fails, asking it raises, and its end names exit status and error for the log."""
    await child.send(FAIL, b"out of paint")
    with pytest.raises(CHILD_LOST):
        await child.receive(BYTES_MAX)
    assert await child.end() == "exit status 1 out of paint"


async def test_sending_to_a_dead_child_raises(child: ChildProcess) -> None:
    """A frame that nobody reads is an error, not a wait."""
    child.kill()
    await child.wait()
    with pytest.raises(CHILD_LOST):
        await get(child, ECHO, bytes(1 << 20))


async def test_long_last_words_are_cut(child: ChildProcess) -> None:
    """Of a child that writes pages to stderr, the end is kept."""
    await child.send(FAIL, b"x" * 1_000_000 + b" the end")
    with pytest.raises(CHILD_LOST):
        await child.receive(BYTES_MAX)
    report = await child.end()
    assert report.endswith("the end")
    assert len(report) < 2100


async def test_killing_a_child_that_has_exited_keeps_its_status(child: ChildProcess) -> None:
    """A child's own exit status is not lost to a kill that came too late."""
    await child.send(FAIL, b"")
    await child.wait()
    child.kill()
    assert (await child.end()).startswith("exit status 1")


async def test_a_child_that_waits_ends_with_its_stdin(child: ChildProcess) -> None:
    """Ending an idle child needs no signal, and ending it again does nothing."""
    assert child.is_alive()
    assert await child.end() == "exit status 0"
    assert not child.is_alive()
    assert await child.end() == "exit status 0"


@pytest.mark.parametrize("kind", [SLEEP, FLOOD])
async def test_a_child_that_does_not_end_is_killed(child: ChildProcess, kind: bytes) -> None:
    """A child that ignores the end of its stdin, or writes without end, is killed after its time."""
    await child.send(kind, b"")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert await child.end(0.3) == f"exit status -{int(signal.SIGKILL)}"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB


async def test_a_request_can_be_given_up(child: ChildProcess) -> None:
    """After a cancelled receive the child can be killed and is gone at once."""
    receiving = asyncio.create_task(get(child, SLEEP))
    await asyncio.sleep(0.05)
    receiving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await receiving
    child.kill()
    assert await child.end() == f"exit status -{int(signal.SIGKILL)}"


async def test_ctrl_c_does_not_reach_children(child: ChildProcess) -> None:
    """A child has a session of its own, so what a terminal sends to the bot's is not for it."""
    assert os.getsid(child._process.pid) == child._process.pid != os.getsid(0)


async def test_nothing_is_left_of_many_children() -> None:
    """Children that were killed, ended, or given up while they started leave no process and no pipe."""
    await (await ChildProcess.start("tests.support.child")).end()  # the loop's own first files
    before = open_files()
    children = [await ChildProcess.start("tests.support.child", stderr=PIPE) for _ in range(4)]
    await children[0].send(ECHO, bytes(1 << 20))  # an answer that nobody reads
    for child in children[:2]:
        child.kill()
    await asyncio.gather(*(child.end() for child in children))
    for turns in range(5):
        starting = asyncio.create_task(ChildProcess.start("tests.support.child"))
        for _ in range(turns):
            await asyncio.sleep(0)
        starting.cancel()
        with suppress(asyncio.CancelledError):
            await (await starting).end()
    assert not any(is_there(child) for child in children)
    assert open_files() == before


async def test_a_system_without_room_is_an_os_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """When no process can be started, the caller gets the system's own error."""
    monkeypatch.setattr("sys.executable", "/nonexistent/python")
    with pytest.raises(OSError, match="nonexistent"):
        await ChildProcess.start("tests.support.child")
