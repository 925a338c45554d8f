"""What goes wrong for long, in the log: told as it begins, as it changes, and as it is over.

A daemon that runs for months has days on which a disk is full or a host is away. What is said anew
at each step of such a day hides all else.
"""

import logging
from collections.abc import Mapping

log = logging.getLogger("balancerd")


class Troubles:
    """Which troubles there are now, and that each of them was told."""

    def __init__(self, level: int = logging.WARNING) -> None:
        self._level = level
        self._told: dict[str, str] = {}

    def note(self, what: str, trouble: str) -> None:
        """Say what is wrong with something by now, "" for nothing, unless that was said last."""
        if trouble == self._told.get(what, ""):
            return
        if trouble:
            self._told[what] = trouble
            log.log(self._level, "%s: %s", what, trouble)
        else:
            del self._told[what]
            log.info("%s: over", what)

    def all(self, now: Mapping[str, str]) -> Mapping[str, str]:
        """Say what began and what is over, where these are all the troubles there are by now. Gives
        what was said. What only reads otherwise than at its beginning is the same trouble."""
        begun = sorted(now.keys() - self._told.keys())
        over = sorted(self._told.keys() - now.keys())
        said = {what: now.get(what, "") for what in (*begun, *over)}
        for what, trouble in said.items():
            self.note(what, trouble)
        return said
