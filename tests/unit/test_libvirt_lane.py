"""One connection, one call at a time, and what becomes of calls that hang."""

import threading
import time
from collections.abc import Iterator

import libvirt
import pytest

from balancerd.adapters.libvirt import lane as lanes
from balancerd.adapters.libvirt.connection import dispose, open_connection
from balancerd.adapters.libvirt.inventory import Inventory
from balancerd.adapters.libvirt.lane import Lane
from balancerd.adapters.libvirt.workers import Workers
from balancerd.ports import BackendError


@pytest.fixture
def workers() -> Workers:
    return Workers()


@pytest.fixture
def lane(workers: Workers) -> Iterator[Lane]:
    lane = Lane("h1", "test:///default", workers)
    yield lane
    lane.close()


def name(connection: libvirt.virConnect) -> str:
    return str(connection.getType())


def test_calls_share_the_connection_one_after_the_other(lane: Lane) -> None:
    seen = [lane.run("look", id, 5.0) for _ in range(3)]
    assert len(set(seen)) == 1


def test_a_connection_that_is_closed_listens_to_nothing_any_more() -> None:
    """Dies when it is closed only: what is registered would hold it for ever."""
    connection = open_connection("h1", "test:///default")
    Inventory().watch(connection)
    assert connection.domainEventCallbackID
    dispose(connection)
    assert not connection.domainEventCallbackID


def test_a_lane_that_is_busy_says_so_at_once_and_with_what(lane: Lane) -> None:
    """Dies when a second thread may use the connection: libvirt's client can leave it asleep."""
    gate = threading.Event()
    first = lane.start("first", lambda _connection: gate.wait())
    begun = time.monotonic()
    with pytest.raises(BackendError, match="h1: second: busy with: first"):
        lane.start("second", name)
    assert time.monotonic() - begun < 1
    gate.set()
    assert first.wait(5.0)
    assert lane.run("third", name, 5.0) == "TEST"


def test_a_late_call_keeps_the_lane_until_it_returns(lane: Lane) -> None:
    gate = threading.Event()
    with pytest.raises(BackendError, match="no answer within"):
        lane.run("slow", lambda _connection: gate.wait(), 0.01)
    with pytest.raises(BackendError, match="busy with: slow"):
        lane.run("next", name, 5.0)
    gate.set()
    _until(lambda: lane.run("next", name, 5.0) == "TEST")


def test_a_call_that_hangs_too_long_is_left_with_its_connection(
    lane: Lane, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dies when the hanging call's connection is used on, or closed under it."""
    monkeypatch.setattr(lanes, "CALL_SECONDS", 0.05)
    gate, used, alive = threading.Event(), list[libvirt.virConnect](), list[int]()

    def hang(connection: libvirt.virConnect) -> None:
        used.append(connection)
        gate.wait()
        alive.append(connection.isAlive())  # not closed while it is in use

    call = lane.start("hang", hang)
    time.sleep(0.1)
    assert lane.run("next", id, 5.0) != id(used[0])
    assert workers.hanging == 1
    gate.set()
    assert call.wait(5.0)
    _until(lambda: workers.hanging == 0)
    assert alive == [1]


def test_after_a_failed_attempt_the_next_waits_and_says_why(workers: Workers) -> None:
    lane = Lane("h1", "qemu+tcp://127.0.0.1:1/system", workers)
    with pytest.raises(BackendError, match="refused"):
        lane.run("look", name, 5.0)
    _until(lambda: "next attempt in" in _refusal(lane))
    assert "refused" in _refusal(lane)


def test_a_closed_lane_leaves_the_closing_to_the_call_under_way(lane: Lane) -> None:
    """Dies when the lane closes it at once: the process may end with it."""
    begun, gate, alive = threading.Event(), threading.Event(), []

    def use(connection: libvirt.virConnect) -> None:
        begun.set()
        gate.wait()
        alive.append(connection.isAlive())

    lane.run("open", name, 5.0)
    call = lane.start("use", use)
    assert begun.wait(5.0)
    lane.close()
    gate.set()
    assert call.wait(5.0)
    assert alive == [1]


def _refusal(lane: Lane) -> str:
    try:
        lane.run("look", name, 5.0)
    except BackendError as error:
        return str(error)
    return ""


def _until(holds: object, patience: float = 5.0) -> None:
    assert callable(holds)
    deadline = time.monotonic() + patience
    while True:
        try:
            if holds():
                return
        except BackendError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.005)
