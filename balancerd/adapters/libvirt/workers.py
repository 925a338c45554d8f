"""Calls that may hang, each on a thread of its own.

libvirt has no deadline per call, and a Python thread that is stuck in C cannot be stopped. So the
one who waits gives up instead, the thread is abandoned until its call returns, and the abandoned
are counted: when too many of one host's calls hang, nothing more is started there.
"""

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, wait
from concurrent.futures import TimeoutError as LateError
from typing import Generic, TypeVar

from balancerd.ports import BackendError

T = TypeVar("T")

HANGING_AT_MOST = 4  # calls on one host


class Call(Generic[T]):
    """One call under way. Its threads are daemons: a hung host never keeps the process alive."""

    def __init__(self, workers: "Workers", host: str, act: str, work: Callable[[], T]) -> None:
        self.host, self.act = host, act
        self._workers, self._work = workers, work
        self._future: Future[T] = Future()
        self._abandoned = False

    @property
    def done(self) -> bool:
        """Whether the call has returned."""
        return self._future.done()

    def result(self, patience: float) -> T:
        """What the call returned or raised; after `patience` seconds a BackendError instead."""
        try:
            return self._future.result(max(patience, 0.0))
        except LateError:
            if self._future.done():  # the call itself raised a TimeoutError
                raise
            raise BackendError(self.host, self.act, f"no answer within {patience:.1f} s") from None

    def wait(self, patience: float) -> bool:
        """Wait for the call to return, in whatever way; whether it has."""
        wait([self._future], max(patience, 0.0))
        return self.done

    def abandon(self) -> None:
        """Give up for good on a call that has not returned. Counted until it does."""
        self._workers.note(self, abandoned=True)

    def run(self) -> None:
        """Do the work; only the thread calls this."""
        try:
            result = self._work()
        except BaseException as error:  # noqa: BLE001  whoever waits gets it raised
            self._future.set_exception(error)
        else:
            self._future.set_result(result)
        self._workers.note(self, abandoned=False)


class Workers:
    """Starts calls and counts those that were abandoned."""

    def __init__(self, cap: int = HANGING_AT_MOST) -> None:
        self._cap = cap
        self._lock = threading.Lock()
        self._hanging: Counter[str] = Counter()
        self._abandoned: set[int] = set()

    @property
    def hanging(self) -> int:
        """Calls that were given up and have not returned, on all hosts."""
        with self._lock:
            return self._hanging.total()

    def start(self, host: str, act: str, work: Callable[[], T]) -> Call[T]:
        """Start a call; BackendError when too many of the host's calls hang already."""
        with self._lock:
            count = self._hanging[host]
        if count >= self._cap:
            raise BackendError(host, act, f"{count} calls hang there; none is added to them")
        return self._launch(host, act, work)

    def leave(self, host: str, act: str, work: Callable[[], T]) -> Call[T]:
        """Start a call whatever hangs there, and count it as hanging until it returns."""
        call = self._launch(host, act, work)
        call.abandon()
        return call

    def _launch(self, host: str, act: str, work: Callable[[], T]) -> Call[T]:
        call = Call(self, host, act, work)
        threading.Thread(target=call.run, name=f"{act}@{host}", daemon=True).start()
        return call

    def run(self, host: str, act: str, work: Callable[[], T], patience: float) -> T:
        """Start a call and wait for it; when it is late it is abandoned and a BackendError."""
        call = self.start(host, act, work)
        try:
            return call.result(patience)
        except BackendError:
            call.abandon()
            raise

    def note(self, call: Call[T], *, abandoned: bool) -> None:
        """Keep count: a call was abandoned, or has returned after all."""
        with self._lock:
            if abandoned and not call.done and id(call) not in self._abandoned:
                self._abandoned.add(id(call))
                self._hanging[call.host] += 1
            elif not abandoned and id(call) in self._abandoned:
                self._abandoned.discard(id(call))
                self._hanging[call.host] -= 1
