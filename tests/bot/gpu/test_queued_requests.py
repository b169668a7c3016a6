"""What is kept of queued requests, and for how long."""

from __future__ import annotations

import pytest

from bot.errors import JobGone
from bot.gpu.queued_requests import RECORD_KEPT_S, RECORDS_MAX, Record, Records
from tests.support.clock import HandClock


@pytest.fixture
def clock() -> HandClock:
    """Return a clock that stands still."""
    return HandClock()


@pytest.fixture
def records(clock: HandClock) -> Records:
    """Return an empty store of records."""
    return Records(clock)


def done(name: str, clock: HandClock, *, owner: int | None = 1) -> Record:
    """Return a record that has its picture."""
    return Record(name, owner, clock.now(), status="COMPLETED", outputs=[name.encode()])


def test_record_is_found_by_its_owner_alone(records: Records, clock: HandClock) -> None:
    """Another key learns nothing, not even that the request exists."""
    records.add(done("a", clock))
    assert records.find("a", owner=1).id == "a"
    for request_id, owner in (("a", 2), ("a", None), ("b", 1)):
        with pytest.raises(JobGone):
            records.find(request_id, owner=owner)


def test_record_is_gone_after_an_hour(records: Records, clock: HandClock) -> None:
    """After an hour neither the request nor its picture is there."""
    record = done("a", clock)
    records.add(record)
    assert records.output(record.output_id, 0) == b"a"
    clock.time += RECORD_KEPT_S + 1
    with pytest.raises(JobGone):
        records.find("a", owner=1)
    with pytest.raises(JobGone):
        records.output(record.output_id, 0)


def test_newest_records_are_kept_and_none_that_still_runs_is_lost(records: Records, clock: HandClock) -> None:
    """When there are too many, the oldest finished ones go; what is still being made stays."""
    records.add(Record("running", 1, clock.now()))
    for i in range(RECORDS_MAX + 5):
        records.add(done(str(i), clock))
    assert records.find("running", owner=1).status == "QUEUED"
    assert records.find(str(RECORDS_MAX + 4), owner=1).outputs
    with pytest.raises(JobGone):
        records.find("0", owner=1)


def test_picture_that_is_not_there_is_told(records: Records, clock: HandClock) -> None:
    """A wrong index or a guessed address finds nothing."""
    record = done("a", clock)
    records.add(record)
    for output_id, index in ((record.output_id, 1), ("guess", 0)):
        with pytest.raises(JobGone):
            records.output(output_id, index)
