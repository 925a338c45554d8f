"""What a balancerd has in a simulated life: a ledger at whose writes it may die, or find its disk
full, a clock that is set now and then, and no samples.
"""

import random
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from balancerd.adapters.sim.world import World
from balancerd.adapters.sqlite.ledger import Ledger
from balancerd.core.past.record import Conclusion
from balancerd.ports import LedgerError


class KilledError(BaseException):
    """The daemon dies here. Not an Exception, so that no handler of production code survives it."""


class MortalLedger:
    """A ledger whose process may die before or after any of its writes; on a full disk there are
    none."""

    WRITES = frozenset(
        {
            "intend",
            "conclude",
            "record_progress",
            "record_inventory",
            "record_plan",
            "set_plan_state",
            "record_power",
            "record_cycle",
            "record_event",
            "answer",
            "set_draining",
        }
    )

    def __init__(
        self,
        ledger: Ledger,
        rng: random.Random,
        chance: float,
        is_full: Callable[[], bool],
        concluded: Callable[[Conclusion], None],  # told of each end that is written down
    ) -> None:
        self.real = ledger
        self._rng = rng
        self.chance = chance
        self._is_full, self._concluded = is_full, concluded

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.real, name)
        if name in self.WRITES:
            call = self._mortally(name, call)
        setattr(self, name, call)  # it is asked for by every step
        return call

    def _mortally(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def mortal(*arguments: Any, **named: Any) -> Any:
            if self._is_full():
                raise LedgerError("the disk is full")
            fate = self._rng.random()
            if fate < self.chance / 2:
                raise KilledError
            result = call(*arguments, **named)
            if name == "conclude":
                self._concluded(*arguments)
            if fate < self.chance:
                raise KilledError
            return result

        return mortal


class OwnClock:
    """balancerd's clock, that may be ahead of the world's, or behind. It is set only while nothing
    is under way: see `balancerd.steady`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.ahead = 0.0  # seconds

    def now(self) -> float:
        return self._world.now() + self.ahead

    def monotonic(self) -> float:
        return self._world.monotonic()


class NoSamples:
    """Samples are disposable; a life does without."""

    def append(self, at: float, hosts: Mapping[str, Any], vms: Mapping[str, Any]) -> None:
        """Keep nothing."""

    def hours(self, now: float, span: float) -> tuple[()]:
        return ()

    def recent(self, now: float, span: float) -> tuple[()]:
        """Nothing was kept."""
        return ()

    def roll_up(self, now: float) -> None:
        """Nothing to fold."""


@cache
def empty_ledger() -> bytes:
    """The file of a ledger in which nothing stands yet: making its schema takes a while."""
    with tempfile.TemporaryDirectory(prefix="balancerd-ledger-") as directory:
        path = Path(directory) / "ledger.db"
        with Ledger(path, durable=False):
            pass
        return path.read_bytes()
