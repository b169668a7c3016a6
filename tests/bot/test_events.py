"""Events: every listener gets each of them, whatever the others do."""

import pytest

from bot.events import AuditLogGrew, Event, Events, JobFailed, JobRendered


def test_listeners_are_called_in_order_until_they_leave() -> None:
    """A listener gets what happens after it came and before it left."""
    events, calls = Events(), list[tuple[str, Event]]()
    leave = events.subscribe(lambda event: calls.append(("first", event)))
    events.subscribe(lambda event: calls.append(("second", event)))
    events.emit(JobRendered(1))
    leave()
    events.emit(JobFailed(2))
    assert calls == [("first", JobRendered(1)), ("second", JobRendered(1)), ("second", JobFailed(2))]


def test_an_error_of_one_listener_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """A bug in one cog is logged with its trace, and the others still show what happened."""
    events, calls = Events(), list[Event]()

    def fails(_event: Event) -> None:
        raise RuntimeError("a bug")

    events.subscribe(fails)
    events.subscribe(calls.append)
    events.emit(AuditLogGrew(1))
    assert calls == [AuditLogGrew(1)]
    assert "A listener failed on AuditLogGrew" in caplog.text
    assert "a bug" in caplog.text


def test_listeners_may_come_and_go_while_an_event_is_announced() -> None:
    """A client that is closed by an event neither loses others that event nor gets it twice."""
    events, calls = Events(), list[str]()

    def leaves(_event: Event) -> None:
        leave()
        events.subscribe(lambda _event: calls.append("new"))

    leave = events.subscribe(leaves)
    events.subscribe(lambda _event: calls.append("old"))
    events.emit(JobRendered(1))
    assert calls == ["old"]
    events.emit(JobRendered(1))
    assert calls == ["old", "old", "new"]
