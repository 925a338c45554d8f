"""What others did to VMs, as the audit has it: the newest deed of each VM."""

from collections.abc import Mapping
from math import inf

from balancerd.adapters.sqlite.database import Database
from balancerd.core.past.vetoes import DEED, Deed


class PastDeeds:
    """Read once, then kept up with each deed that is recorded."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._newest: dict[str, Deed] | None = None
        self._rollbacks = 0

    def add(self, deed: Deed) -> None:
        """Take in a deed that was recorded just now."""
        if self._newest is not None:
            self._newest[deed.vm] = deed

    def since(self, begin: float) -> Mapping[str, Deed]:
        """By VM, those of this time and later."""
        if self._newest is None or self._rollbacks != self._database.rollbacks:
            self._rollbacks = self._database.rollbacks
            self._newest = deeds_between(self._database, begin, inf)
        return {vm: deed for vm, deed in self._newest.items() if deed.at >= begin}


def deeds_between(database: Database, begin: float, end: float) -> dict[str, Deed]:
    """By VM, the newest from the one time to the other."""
    rows = database.rows(
        "SELECT subject, detail, at FROM events WHERE kind = ? AND at >= ? AND at <= ?"
        " ORDER BY at, id",  # by the index of times: there are far more lines than deeds
        (DEED, begin, end),
    )
    return {vm: Deed(vm, what, at) for vm, what, at in rows}
