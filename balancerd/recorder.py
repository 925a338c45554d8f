"""The ledger as the loop uses it: a failure to record stops all action, and is told once."""

import logging
from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

from balancerd.core.past.record import Conclusion, PlanState
from balancerd.ports import Ledger, LedgerError
from balancerd.troubles import Troubles

log = logging.getLogger("balancerd")

BROKEN = "the ledger is broken, nothing will be done"

P = ParamSpec("P")
T = TypeVar("T")


class Recorder:
    """Keeps writing to a ledger that may break. `broken` says why it is, "" while it is not."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.broken = ""
        self._unrecorded: list[Callable[[], None]] = []
        self._troubles = Troubles(logging.ERROR)

    def retry(self) -> None:
        """Begin anew with each cycle: the ledger may be whole again, and is where it took all of
        the last one. Ends that could not be recorded come first."""
        if not self.broken:
            self._troubles.note(BROKEN, "")
        self.broken = ""
        self._catch_up()

    def keep(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """Read or write; None when the ledger is broken, and then nothing may be done."""
        try:
            return call(*args, **kwargs)
        except LedgerError as error:
            self.broken = str(error)
            self._troubles.note(BROKEN, self.broken)
            return None

    def conclude(self, conclusion: Conclusion) -> None:
        """Record how an intent ended, now or as soon as the ledger is whole."""
        log.info("intent %d %s: %s", conclusion.intent, conclusion.outcome, conclusion.detail)
        self._once_whole(partial(self.ledger.conclude, conclusion))

    def end_plan(self, plan: int, state: PlanState, at: float, detail: str) -> None:
        """Record how a plan ended, now or as soon as the ledger is whole."""
        log.info("plan %d %s: %s", plan, state, detail)
        self._once_whole(partial(self.ledger.set_plan_state, plan, state, at, detail))

    def event(self, at: float, kind: str, subject: str, detail: str) -> None:
        """Add a line to the audit."""
        self.keep(self.ledger.record_event, at, kind, subject, detail)

    def _once_whole(self, write: Callable[[], None]) -> None:
        self._unrecorded.append(write)
        self._catch_up()

    def _catch_up(self) -> None:
        while self._unrecorded and not self.broken:
            self.keep(self._unrecorded[0])
            if not self.broken:
                del self._unrecorded[0]
