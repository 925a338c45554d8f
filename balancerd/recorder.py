"""The ledger as the loop uses it: a failure to record is told once, and stops all action."""

import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from balancerd.core.past.record import Conclusion
from balancerd.ports import Ledger, LedgerError

log = logging.getLogger("balancerd")

P = ParamSpec("P")
T = TypeVar("T")


class Recorder:
    """Keeps writing to a ledger that may break. `broken` says why it is, "" while it is not."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.broken = ""
        self._unrecorded: list[Conclusion] = []

    def retry(self) -> None:
        """Begin anew: the ledger may be whole again. Ends that could not be recorded come first."""
        self.broken = ""
        while self._unrecorded and not self.broken:
            self.keep(self.ledger.conclude, self._unrecorded[0])
            if not self.broken:
                del self._unrecorded[0]

    def keep(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """Read or write; None when the ledger is broken, and then nothing may be done."""
        try:
            return call(*args, **kwargs)
        except LedgerError as error:
            if not self.broken:
                log.error("the ledger is broken, nothing will be done: %s", error)
            self.broken = str(error)
            return None

    def conclude(self, conclusion: Conclusion) -> None:
        """Record how an intent ended, now or as soon as the ledger is whole."""
        log.info("intent %d %s: %s", conclusion.intent, conclusion.outcome, conclusion.detail)
        self._unrecorded.append(conclusion)
        if not self.broken:
            self.retry()

    def event(self, at: float, kind: str, subject: str, detail: str) -> None:
        """Add a line to the audit."""
        self.keep(self.ledger.record_event, at, kind, subject, detail)
