"""Calls that hang cost whoever waits a deadline, and are counted."""

import threading
import time

import pytest

from balancerd.adapters.libvirt.workers import Workers
from balancerd.ports import BackendError


def test_a_call_gives_back_what_its_work_returned_or_raised() -> None:
    workers = Workers()
    assert workers.run("h1", "read", lambda: 7, 5.0) == 7
    with pytest.raises(ZeroDivisionError):
        workers.run("h1", "read", lambda: 1 // 0, 5.0)


def test_a_late_call_is_an_error_that_names_host_act_and_patience() -> None:
    workers, gate = Workers(), threading.Event()
    with pytest.raises(BackendError, match=r"h1: read: no answer within 0\.0 s"):
        workers.run("h1", "read", gate.wait, 0.01)
    gate.set()


def test_abandoned_calls_are_counted_until_they_return() -> None:
    """Dies when the count is not taken back: one bad night would end the host for ever."""
    workers, gate = Workers(), threading.Event()
    call = workers.start("h1", "read", gate.wait)
    assert workers.hanging == 0
    call.abandon()
    call.abandon()
    assert workers.hanging == 1
    gate.set()
    assert call.wait(5.0)
    _until(lambda: workers.hanging == 0)


def test_a_host_with_too_many_hanging_calls_gets_no_more_and_others_do() -> None:
    """Dies without the cap: a host that hangs for a week would cost a thread a minute."""
    workers, gate = Workers(cap=2), threading.Event()
    for _ in range(2):
        workers.start("h1", "read", gate.wait).abandon()
    with pytest.raises(BackendError, match="2 calls hang"):
        workers.start("h1", "read", gate.wait)
    assert workers.run("h2", "read", lambda: 1, 5.0) == 1
    gate.set()
    _until(lambda: workers.hanging == 0)
    assert workers.run("h1", "read", lambda: 1, 5.0) == 1


def test_a_call_that_is_done_cannot_be_abandoned() -> None:
    workers = Workers()
    call = workers.start("h1", "read", lambda: 1)
    assert call.wait(5.0)
    call.abandon()
    assert workers.hanging == 0


def _until(holds: object, patience: float = 5.0) -> None:
    assert callable(holds)
    deadline = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)
