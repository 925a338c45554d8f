"""A power driver that is asked, and whose orders are carried out, beside the loop.

A command may take a minute, and would hold the loop up. Each order and each question has a thread
of its own; what goes wrong with an order is told later, and an answer that comes late counts later.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from balancerd.core.model import PowerState
from balancerd.ports import PowerError

LOG = logging.getLogger(__name__)

PATIENCE = 5.0  # seconds in which hosts that are not known to be slow have to answer, all of them
KEPT = 90.0  # seconds for which an answer counts that came after it was waited for
AT_ONCE = 16  # questions under way: so many to slow hosts, and so many to all others


class Driver(Protocol):
    """A power driver that blocks: its orders until they were carried out."""

    def state(self, host: str) -> PowerState:
        """The power state of a host. Called from many threads, for one host by one at a time."""
        ...

    def wake(self, host: str) -> None:
        """Switch a host on."""
        ...

    def sleep(self, host: str) -> None:
        """Shut a host down."""
        ...


@dataclass(frozen=True, slots=True)
class _Answer:
    state: PowerState
    at: float  # by the monotonic clock


@dataclass(slots=True)
class _Question:
    """A question under way, and the place it takes."""

    answer: Future[PowerState] = field(default_factory=Future)
    place: threading.Semaphore | None = None


class _Questions:
    """Asks hosts for their state, and waits for no host that kept it waiting the last time.

    A host that is slow is asked all the same. What it says counts when the next asks, once, if it
    is not too old by then: so it is known, only later than others.
    """

    def __init__(self, ask: Callable[[str], PowerState], patience: float, kept: float) -> None:
        self._ask, self._patience, self._kept_seconds = ask, patience, kept
        self._lock = threading.Lock()
        self._asked: dict[str, _Question] = {}
        self._kept: dict[str, _Answer] = {}
        self._slow: set[str] = set()
        # A slow host must not take the place of one that answers.
        self._places = threading.Semaphore(AT_ONCE)
        self._slow_places = threading.Semaphore(AT_ONCE)

    def put(self, hosts: Iterable[str]) -> Mapping[str, PowerState]:
        """Every host's state; UNKNOWN where no answer is there in time."""
        names = list(hosts)
        with self._lock:
            known = {name: state for name in names if (state := self._take(name)) is not None}
            questions = {name: self._begin(name) for name in names}
            awaited = [n for n in names if n not in known and n not in self._slow]
        wait([questions[name].answer for name in awaited], self._patience)
        with self._lock:
            return MappingProxyType({n: self._result(n, questions[n], known) for n in names})

    def forget(self, host: str) -> None:
        """Believe no answer to a question from before now: the state is being changed."""
        with self._lock:
            self._kept.pop(host, None)
            self._asked.pop(host, None)

    def _take(self, host: str) -> PowerState | None:
        """The answer that came late, if it is young enough."""
        kept = self._kept.pop(host, None)
        young = kept is not None and time.monotonic() - kept.at <= self._kept_seconds
        return kept.state if kept is not None and young else None

    def _begin(self, host: str) -> _Question:
        """The question that is under way to a host, or a new one."""
        if host not in self._asked:
            question = self._asked[host] = _Question()
            task, name = (host, question), f"power state of {host}"
            threading.Thread(target=self._carry_out, args=task, name=name, daemon=True).start()
        return self._asked[host]

    def _carry_out(self, host: str, question: _Question) -> None:
        self._enter(host, question)
        begun, state = time.monotonic(), PowerState.UNKNOWN
        try:
            state = self._ask(host)
        except Exception:  # a question must have an answer, whatever happened
            LOG.exception("%s: asking for its power state failed", host)
        now = time.monotonic()
        with self._lock:
            _leave(question)
            (self._slow.add if now - begun > self._patience else self._slow.discard)(host)
            if self._asked.get(host) is question:
                self._kept[host] = _Answer(state, now)
                del self._asked[host]
            question.answer.set_result(state)

    def _enter(self, host: str, question: _Question) -> None:
        """Wait for a place: one among the slow if it became known as such meanwhile."""
        self._places.acquire()
        with self._lock:
            question.place = self._places
            if host not in self._slow:
                return
            _leave(question)
        self._slow_places.acquire()
        question.place = self._slow_places

    def _result(
        self, host: str, question: _Question, known: Mapping[str, PowerState]
    ) -> PowerState:
        """What is known by now; an answer in time is not kept, and one out of time makes slow."""
        if question.answer.done():
            self._kept.pop(host, None)
            return question.answer.result()
        if host in known:
            return known[host]
        self._slow.add(host)
        if question.place is self._places:
            _leave(question)
        return PowerState.UNKNOWN


def _leave(question: _Question) -> None:
    """Let somebody else have the place. Under the lock."""
    place, question.place = question.place, None
    if place is not None:
        place.release()


class PowerAside:
    """The `Power` port over a driver that may block. One order to a host at a time."""

    def __init__(self, driver: Driver, patience: float = PATIENCE, kept: float = KEPT) -> None:
        self._driver = driver
        self._questions = _Questions(driver.state, patience, kept)
        self._lock = threading.Lock()
        self._under_way: set[str] = set()
        self._failures: dict[str, str] = {}

    def states(self, hosts: Iterable[str]) -> Mapping[str, PowerState]:
        """Every host's state, asked side by side; UNKNOWN where no answer is there in time."""
        return self._questions.put(hosts)

    def wake(self, host: str) -> None:
        """Begin to switch a host on."""
        self._begin(host, self._driver.wake)

    def sleep(self, host: str) -> None:
        """Begin to shut a host down."""
        self._begin(host, self._driver.sleep)

    def failures(self) -> Mapping[str, str]:
        """Orders that failed since the last call, with the reason, by host."""
        with self._lock:
            told, self._failures = self._failures, {}
        return told

    def _begin(self, host: str, order: Callable[[str], None]) -> None:
        with self._lock:
            if host in self._under_way:
                raise PowerError(f"{host}: the last order is still under way")
            self._under_way.add(host)
        self._questions.forget(host)
        name = f"power of {host}"
        threading.Thread(target=self._carry_out, args=(host, order), name=name, daemon=True).start()

    def _carry_out(self, host: str, order: Callable[[str], None]) -> None:
        problem = ""
        try:
            order(host)
        except PowerError as error:
            problem = str(error)
        except Exception as error:  # an order must be told the end of, whatever happened
            LOG.exception("%s: the order failed", host)
            problem = f"{host}: unforeseen: {error!r}"
        with self._lock:
            self._under_way.discard(host)
            if problem:
                self._failures[host] = problem
