"""Migrations under way, as a fluid: bytes flow at the rates that the links allow.

Pre-copy sends all memory in a first round, then in each further round what was written during the
one before, until what is left can be sent within the downtime allowed; then the VM stands still for
that. With memory M, dirty rate D and rate B, n further rounds have sent
M (1 - (D/B)^(n+1)) / (1 - D/B).
"""

from collections.abc import Iterable, Sequence
from enum import IntEnum
from math import inf

import numpy as np
from numpy.typing import NDArray

from balancerd.adapters.sim.network import Network
from balancerd.adapters.sim.sharing import Floats, max_min_rates
from balancerd.core.columns import rows_where

TICK = 1e-6  # seconds; events closer than this are one
SMALLEST_ROUND = 2.0**16  # bytes; what is left below this is never worth another round
ENDLESS_RATE = 1e15  # bytes per second, for a migration without a cap
HOPS = 8

# Auto-converge as QEMU does it by default: a round that leaves more than half of what it sent.
CONVERGE_TRIGGER, CONVERGE_FIRST, CONVERGE_STEP, CONVERGE_MOST = 0.5, 0.20, 0.10, 0.99


class Phase(IntEnum):
    """Where a migration stands."""

    SETUP = 0
    COPY = 1
    SWITCH = 2  # the VM stands still; its last pages are sent
    PULL = 3  # post-copy: it runs at the target, the rest of its memory follows
    BROKEN = 4  # the two halves of a post-copy have lost each other; the VM waits for its memory


# Arrays are compared with plain numbers sooner. From PULL on there is no way back.
SETUP, COPY, SWITCH, PULL, BROKEN = map(int, Phase)


class Tactic(IntEnum):
    """What distinguishes the methods while memory is copied."""

    PRE_COPY = 0
    CONVERGE = 1
    POST_COPY = 2


ROW = np.dtype(
    [
        ("vm", np.intp),
        ("source", np.intp),
        ("target", np.intp),
        ("tactic", np.int8),
        ("phase", np.int8),
        ("began", float),  # seconds since the start, like `due`
        ("due", float),  # when SETUP or SWITCH ends
        ("total", float),  # bytes of the first round
        ("left", float),  # bytes of this round still to be sent
        ("round_bytes", float),
        ("dirtied", float),  # bytes written since this round began
        ("sent", float),
        ("round", int),
        ("rate", float),  # bytes per second, by the links
        ("cap", float),
        ("dirty_rate", float),
        ("working_set", float),  # bytes; no more than this is dirty at once
        ("throttle", float),  # share of its CPU that auto-converge takes from the VM
        ("pause_limit", float),  # seconds
        ("downtime", float),
        ("path", np.intp, (HOPS,)),
    ]
)
Rows = NDArray[np.void]
Bools = NDArray[np.bool_]


class Flights:
    """The migrations under way, one row each in the order of their start."""

    def __init__(self, network: Network, switch_over: float) -> None:
        self.rows: Rows = np.zeros(0, ROW)
        self._row: dict[int, int] = {}  # of each VM's migration
        self._network = network
        self._switch_over = switch_over
        self._stale = False  # rates have to be shared out anew

    def __len__(self) -> int:
        return len(self.rows)

    def find(self, vm: int) -> int | None:
        """The row of a VM's migration, if it has one."""
        return self._row.get(vm)

    def begin(
        self,
        vm: int,
        source: int,
        target: int,
        tactic: Tactic,
        now: float,
        setup: float,
        total: float,
        working_set: float,
        cap: float,
        pause_limit: float,
    ) -> None:
        """A migration of `total` bytes starts; its first byte leaves after `setup` seconds."""
        rows = np.zeros(len(self.rows) + 1, ROW)  # `append` would ask what both have in common
        rows[:-1], row = self.rows, rows[-1]
        path = self._network.path(source, target)
        none = len(self._network.capacities) - 1
        row["path"] = [*path, *[none] * (HOPS - len(path))]
        row["vm"], row["source"], row["target"], row["tactic"] = vm, source, target, tactic
        row["phase"], row["began"], row["due"] = SETUP, now, now + setup
        row["total"] = row["left"] = row["round_bytes"] = total
        row["working_set"], row["pause_limit"], row["round"] = working_set, pause_limit, 1
        row["cap"] = min(cap, ENDLESS_RATE)
        self._row[vm] = len(self.rows)
        self.rows = rows

    def switch(self, index: int, now: float) -> bool:
        """Stop a VM's pre-copy: it goes on at the target as soon as it is handed over. False where
        the migration was not begun for that, or is not copying now."""
        row = self.rows[index]
        if row["tactic"] != Tactic.POST_COPY or row["phase"] != COPY:
            return False
        row["phase"], row["downtime"] = SWITCH, self._switch_over
        row["due"] = now + self._switch_over
        row["left"] = min(float(row["left"] + row["dirtied"]), float(row["total"]))
        row["dirtied"] = 0.0
        self._stale = True
        return True

    def break_off(self, index: int) -> None:
        """A post-copy's connection is gone: nothing flows until somebody recovers it."""
        self.rows["phase"][index], self.rows["due"][index] = BROKEN, inf
        self._stale = True

    def recover(self, index: int) -> None:
        """What was broken off goes on where it was."""
        self.rows["phase"][index] = PULL
        self._stale = True

    def remove(self, indices: Sequence[int]) -> None:
        """Migrations that are over."""
        self.rows = np.delete(self.rows, indices)
        self._row = {vm: index for index, vm in enumerate(self.rows["vm"].tolist())}
        self._stale = True

    def share_again(self) -> None:
        """Links or caps changed: rates are computed anew before time goes on."""
        self._stale = True

    def set_dirty_rates(self, rates: Floats) -> None:
        """How fast each VM of the site (by its index) writes its memory now, bytes per second."""
        self.rows["dirty_rate"] = rates[self.rows["vm"]]

    def next_event(self, now: float) -> float:
        """When a phase or a round ends, if nothing else changes; infinite without migrations."""
        if not len(self.rows):
            return inf
        self._refresh()
        rows = self.rows
        flowing = self._flowing()
        with np.errstate(divide="ignore", invalid="ignore"):
            lasts = np.where(rows["rate"] > 0, rows["left"] / rows["rate"], inf)
        return float(np.where(flowing, now + lasts, rows["due"]).min())

    def flow(self, seconds: float) -> None:
        """Let time pass up to the next event at most."""
        if not len(self.rows):
            return
        self._refresh()
        rows = self.rows
        flowing = self._flowing()
        moved = np.where(flowing, np.minimum(rows["rate"] * seconds, rows["left"]), 0.0)
        rows["left"] -= moved
        rows["sent"] += moved
        written = rows["dirty_rate"] * (1.0 - rows["throttle"]) * seconds
        fresh = np.minimum(rows["dirtied"] + written, rows["working_set"])
        rows["dirtied"] = np.where(rows["phase"] == COPY, fresh, rows["dirtied"])

    def due(self, now: float) -> list[int]:
        """The rows of which a phase or a round ends now."""
        rows = self.rows
        flowing = self._flowing()
        copied = flowing & (rows["rate"] > 0) & (rows["left"] <= rows["rate"] * TICK)
        ends: list[int] = (copied | (~flowing & (rows["due"] <= now + TICK))).nonzero()[0].tolist()
        return ends

    def turn(self, due: Iterable[int], now: float) -> tuple[list[int], list[int], list[int]]:
        """Phases and rounds that are due end now: rows that are over, that stop their VM, that let
        it run at the target. Over are those that are complete."""
        over: list[int] = []
        stopped: list[int] = []
        landed: list[int] = []
        for index in due:
            row = self.rows[index]
            if row["phase"] == SETUP:
                row["phase"] = COPY
                self._stale = True
            elif row["phase"] == COPY and self._end_round(row, now):
                stopped.append(index)
            elif row["phase"] == PULL:
                over.append(index)
            if row["phase"] == SWITCH and row["due"] <= now + TICK:
                landed.append(index)
                if row["tactic"] == Tactic.POST_COPY and row["left"] > 0:
                    row["phase"] = PULL
                else:
                    over.append(index)
        return over, stopped, landed

    def _flowing(self) -> Bools:
        """Those that send what `left` tells."""
        phase = self.rows["phase"]
        flowing: Bools = (phase == COPY) | (phase == PULL)
        return flowing

    def _end_round(self, row: np.void, now: float) -> bool:
        """Begin the next round, or stop the VM for the last one (then True)."""
        remaining, rate = float(row["dirtied"]), float(row["rate"])
        if remaining > max(rate * row["pause_limit"], SMALLEST_ROUND):
            self._next_round(row, remaining)
            return False
        pause = self._switch_over + remaining / rate
        row["phase"], row["due"], row["downtime"] = SWITCH, now + pause, pause
        row["sent"] += remaining
        row["left"] = row["dirtied"] = 0.0
        return True

    def _next_round(self, row: np.void, remaining: float) -> None:
        stuck = remaining > CONVERGE_TRIGGER * row["round_bytes"]
        if row["tactic"] == Tactic.CONVERGE and stuck:
            more = row["throttle"] + CONVERGE_STEP if row["throttle"] else CONVERGE_FIRST
            row["throttle"] = min(more, CONVERGE_MOST)
        row["left"] = row["round_bytes"] = remaining
        row["dirtied"] = 0.0
        row["round"] += 1

    def _refresh(self) -> None:
        if not self._stale:
            return
        self._stale = False
        phase = self.rows["phase"]
        sending = rows_where((phase != SETUP) & (phase != BROKEN))
        rows = self.rows[sending]
        self.rows["rate"][sending] = max_min_rates(
            rows["path"], rows["cap"], self._network.capacities
        )
