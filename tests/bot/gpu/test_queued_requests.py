"""Queued requests: how they end, who may see them, and how long they are kept."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("torch", reason="needs the extra [gpu]")
pytest.importorskip("diffusers", reason="needs the extra [gpu]")
pytest.importorskip("starlette", reason="needs the extra [gpu]")

from bot.errors import BackendFailed, JobGone
from bot.gpu.api_keys import Charge
from bot.gpu.queued_requests import KEPT_S, REQUESTS_MAX, QueuedRequest, QueuedRequests
from bot.gpu.request_body import GenerationRequest
from bot.gpu.request_runner import AcceptedRequest
from bot.gpu.streaming import StepFeed
from bot.gpu.tickets import Step
from bot.params import Img2ImgParams
from tests.bot.gpu.model_stand_ins import picture
from tests.support.clock import HandClock


async def never(_: AcceptedRequest) -> list[bytes]:
    """Stand in for a request that takes forever."""
    await asyncio.Event().wait()
    raise AssertionError


@pytest.fixture
def clock() -> HandClock:
    """Return a clock that stands still."""
    return HandClock()


@pytest.fixture
def requests(clock: HandClock) -> QueuedRequests:
    """Return an empty store of requests that take forever."""
    return QueuedRequests(never, clock)


def done(name: str, clock: HandClock, *, key_id: int | None = 1) -> QueuedRequest:
    """Return a request that has its picture."""
    return QueuedRequest(name, key_id, clock.now(), status="COMPLETED", outputs=[name.encode()])


def test_request_is_found_only_by_its_key(requests: QueuedRequests, clock: HandClock) -> None:
    """Another key can't see even that the request exists."""
    requests.add(done("a", clock))
    assert requests.find("a", key_id=1).id == "a"
    for request_id, key_id in (("a", 2), ("a", None), ("b", 1)):
        with pytest.raises(JobGone):
            requests.find(request_id, key_id=key_id)


def test_request_is_dropped_after_an_hour(requests: QueuedRequests, clock: HandClock) -> None:
    """After an hour neither the request nor its picture is there."""
    queued = done("a", clock)
    requests.add(queued)
    assert requests.output(queued.output_id, 0) == b"a"
    clock.time += KEPT_S + 1
    with pytest.raises(JobGone):
        requests.find("a", key_id=1)
    with pytest.raises(JobGone):
        requests.output(queued.output_id, 0)


def test_newest_and_running_requests_are_kept(requests: QueuedRequests, clock: HandClock) -> None:
    """When there are too many, the oldest finished ones are dropped; those that still run stay."""
    requests.add(QueuedRequest("running", 1, clock.now()))
    for i in range(REQUESTS_MAX + 5):
        requests.add(done(str(i), clock))
    assert requests.find("running", key_id=1).status == "QUEUED"
    assert requests.find(str(REQUESTS_MAX + 4), key_id=1).outputs
    with pytest.raises(JobGone):
        requests.find("0", key_id=1)


def test_picture_that_does_not_exist_is_not_found(requests: QueuedRequests, clock: HandClock) -> None:
    """A wrong index or a guessed address finds nothing."""
    queued = done("a", clock)
    requests.add(queued)
    for output_id, index in ((queued.output_id, 1), ("guess", 0)):
        with pytest.raises(JobGone):
            requests.output(output_id, index)


def accepted() -> AcceptedRequest:
    """Return an accepted request of half a credit, of which nothing is made."""
    request = GenerationRequest(Img2ImgParams(prompt="a", seed=1), picture(), as_json=True)
    charge = Charge(key_id=1, request_id="a", units=500, units_left=1500)
    return AcceptedRequest("a", request, charge, tickets=[], steps=StepFeed(), accepted_s=0.0)


async def settle() -> None:
    """Let all that is ready run."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_first_step_starts_the_processing(clock: HandClock) -> None:
    """A request is queued until its first step, and its metrics separate waiting from working."""
    go = asyncio.Event()

    async def finish(_: AcceptedRequest) -> list[bytes]:
        await go.wait()
        return [b"picture"]

    requests, request = QueuedRequests(finish, clock), accepted()
    queued = requests.start(request, 1)
    await settle()
    assert queued.status == "QUEUED"
    clock.time += 2
    request.steps.publish(Step(1, 9, None))
    await settle()
    assert queued.status == "PROCESSING"
    clock.time += 3
    go.set()
    await settle()
    assert (queued.status, queued.outputs) == ("COMPLETED", [b"picture"])
    assert queued.metrics == {
        "cost": 0.5,
        "remaining_credits": 1.5,
        "inference_time": 3.0,
        "queue_time": 2.0,
        "total_time": 5.0,
        "retry_count": 0,
    }


@pytest.mark.parametrize(
    ("error", "sentence"), [(BackendFailed("No luck."), "No luck."), (TimeoutError(), "long")]
)
async def test_failure_is_kept_with_its_sentence(clock: HandClock, error: Exception, sentence: str) -> None:
    """A request that fails or takes too long has that as its outcome."""

    async def finish(_: AcceptedRequest) -> list[bytes]:
        raise error

    queued = QueuedRequests(finish, clock).start(accepted(), 1)
    await settle()
    assert queued.status == "FAILED"
    assert sentence in queued.error


async def test_closing_cancels_and_waits(clock: HandClock) -> None:
    """When the server closes, running requests are cancelled and have ended before it goes on."""
    ended: list[str] = []

    async def finish(request: AcceptedRequest) -> list[bytes]:
        try:
            return await never(request)
        finally:
            await asyncio.sleep(0)
            ended.append(request.id)

    requests = QueuedRequests(finish, clock)
    requests.start(accepted(), 1)
    await settle()
    await requests.close()
    assert ended == ["a"]
