"""Closing one host after the other: what is on it finds a place elsewhere, or it stays as it is.

The host that frees most for the room that goes with it is next. Its blocks go to the fullest of the
most efficient hosts that have room; where none has, the search makes some.
"""

from dataclasses import dataclass, field

import numpy as np

from balancerd.core.placing.layout import Bools, Floats, Ints
from balancerd.core.plan import Refusal
from balancerd.core.planner.draft import Draft
from balancerd.core.planner.search import Search
from balancerd.core.planner.settle import settle
from balancerd.core.units import counted, format_size

SETTLE = 1_500_000  # pairs weighed to make room for what is on one host
ROUNDING = 1e-9
Obstacle = tuple[str, str, str]  # why a host stays on: the kind, its numbers, what would help


@dataclass(slots=True)
class Closing:
    """A search, the hosts that it may still close with what each is worth, and why blocks moved."""

    draft: Draft
    search: Search
    host_price: Floats
    useful: Floats  # reference cores of each host that could be put to use
    closable: Bools
    sizes: Ints  # VMs of each block
    reasons: dict[int, str] = field(default_factory=dict)
    in_vain: int = 0  # work done for hosts that could not be closed

    def next_host(self) -> int | None:
        """The host that saves most for the room that goes with it; None where none does."""
        layout, search = self.search.layout, self.search
        if not self.closable.any():
            return None
        staying = search.price * (layout.place == search.home)
        moving = np.bincount(layout.place, staying, len(layout.hosts))
        saved = np.where(self.closable, self.host_price - moving, -np.inf)
        host = int(np.argmax(saved / self.useful))
        return host if saved[host] > 0 else None

    def close(self, host: int) -> None:
        """Empty a host if there is room elsewhere and that is worth it."""
        search, layout = self.search, self.search.layout
        self.closable[host] = False
        fresh = (layout.place == host) & (search.home == host)
        moves, most = int(layout.sizes[fresh].sum()), self._most()
        was_open, before, work = bool(search.open_[host]), layout.place.copy(), search.work
        search.open_[host] = search.own[host] = False
        self._limit(moves)
        obstacle = self._too_many(moves, most) or self._shortage(host)
        if moves > most:
            self._leave_out(self.draft.room() - self._moved())
        if obstacle is None:
            obstacle = self._empty(host, most)
            if obstacle is None:
                self._explain(host)
                return
            _take_back(search, before)
            self.draft.counts.update(search.turning_down(search.on(host)))
        self.draft.note(Refusal("", layout.hosts[host], *obstacle))
        self.in_vain += search.work - work
        search.open_[host], search.own[host] = was_open, True

    def _most(self) -> int:
        """How many more VMs may move for one host."""
        room = self.draft.room() - self._moved()
        return min(self.draft.policy.limits.moves_per_host, room)

    def _moved(self) -> int:
        return int(self.sizes[self.search.layout.place != self.search.home].sum())

    def _leave_out(self, room: int) -> None:
        """Leave hosts as they are that take more moves than the plan has left."""
        home, hosts = self.search.home, len(self.search.layout.hosts)
        staying = self.search.layout.place == home
        moves = np.bincount(home[staying], self.sizes[staying], hosts)
        left_out = self.closable & (moves > room)
        self.draft.counts["moves per plan"] += int(left_out.sum())
        self.closable &= ~left_out

    def _limit(self, moves: int) -> None:
        """The more moves, the more room has to be left for later; what is fuller stays so."""
        search, bands = self.search, self.draft.policy.thresholds
        fill = bands.fill * (1.0 - bands.margin * moves / self.draft.policy.limits.moves_per_host)
        limit = bands.cpu.landing * fill * search.layout.cpu_capacity
        search.cpu_limit = np.maximum(limit, search.cpu())

    def _too_many(self, moves: int, most: int) -> Obstacle | None:
        """Whether emptying a host takes more moves than it may."""
        if moves <= most:
            return None
        limits = self.draft.policy.limits
        if most == limits.moves_per_host:
            return (
                "moves per host",
                f"{moves} moves of at most {most}",
                "raise limits.moves_per_host",
            )
        detail = f"{moves} moves, and {most} are left of this plan's {limits.per_plan}"
        return "moves per plan", detail, "raise limits.per_plan"

    def _shortage(self, host: int) -> Obstacle | None:
        """What all open hosts together have too little of to take what is on this one."""
        search, layout = self.search, self.search.layout
        open_, asked = search.open_, float(layout.used_cpu[host])
        free = float(np.maximum(0.0, search.cpu_limit - search.cpu())[open_].sum())
        if asked > free * (1 + ROUNDING):
            detail = f"its VMs expect {asked:.2f} cores, the others have {free:.2f} to fill"
            return "no room", detail, f"free {asked - free:.2f} cores on other hosts"
        asked = float(layout.used_memory[host])
        free = float(np.maximum(0.0, search.memory_limit - layout.used_memory)[open_].sum())
        if layout.policy.capacity.enforce_memory and asked > free * (1 + ROUNDING):
            detail = f"it holds {format_size(asked)}, the others have room for {format_size(free)}"
            return "no room", detail, f"free {format_size(asked - free)} of memory on other hosts"
        return None

    def _empty(self, host: int, most: int) -> Obstacle | None:
        """Move everything off the host for less than it saves; why that cannot be, or None."""
        search, moved, cost = self.search, self._moved(), self.search.cost()
        search.soften()
        blocks = search.layout.blocks_on(host)
        size = {b: self._shares(b, host) for b in blocks}
        for block in sorted(blocks, key=lambda b: (-size[b], b)):
            if not self._insert(block):
                vm = search.layout.blocks[block][0]
                return "no room", f"no other host may take {vm}", f"balancerctl why-not {vm} HOST"
        if not settle(search, SETTLE):
            detail = f"its {counted(len(blocks), 'block')} of VMs and what makes way find no places"
            return "no room", detail, ""
        asked, saved = search.cost() - cost, float(self.host_price[host])
        if asked >= saved:
            detail = f"its moves cost {asked:.4g}, and it is worth {saved:.4g} to switch it off"
            return "not worth its moves", detail, "lower costs.move or raise costs.host"
        return self._too_many(self._moved() - moved, most)

    def _shares(self, block: int, host: int) -> float:
        search, layout = self.search, self.search.layout
        cpu = layout.cpu[block] / max(search.cpu_limit[host], ROUNDING)
        return float(cpu + layout.memory[block] / max(search.memory_limit[host], ROUNDING))

    def _use(self, hosts: Ints) -> Floats:
        """How full hosts are, the scarcer resource of each."""
        search, layout = self.search, self.search.layout
        use = search.cpu(hosts) / np.maximum(search.cpu_limit[hosts], ROUNDING)
        if layout.policy.capacity.enforce_memory:
            limit = np.maximum(search.memory_limit[hosts], ROUNDING)
            use = np.maximum(use, layout.used_memory[hosts] / limit)
        return np.asarray(use)

    def _insert(self, block: int) -> bool:
        """Put a block where it costs least: of equals on the most efficient, then the fullest."""
        search, layout = self.search, self.search.layout
        targets = np.flatnonzero(search.open_)
        cost = search.burden(np.array([block]), targets)[0] if len(targets) else np.zeros(0)
        while np.isfinite(cost).any():
            ties = np.flatnonzero(cost <= cost.min() + ROUNDING)
            best = ties[self._preferred(targets[ties])]
            if not search.forbids(block, int(targets[best])):
                layout.move(block, int(targets[best]))
                return True
            cost[best] = np.inf
        return False

    def _preferred(self, hosts: Ints) -> int:
        """Which of some hosts is the fullest of the most efficient; the first of equals."""
        layout = self.search.layout
        price = layout.peak[hosts] / np.maximum(layout.cpu_capacity[hosts], ROUNDING)
        efficient = np.flatnonzero(price == price.min())
        return int(efficient[np.argmax(self._use(hosts[efficient]))])

    def _explain(self, host: int) -> None:
        """Say of every block that moved for this host why it did."""
        search, layout = self.search, self.search.layout
        name, seen = layout.hosts[host], self.draft.assessments[host]
        empty = f"empty {name} (CPU {seen.cpu_mean:.0%}, {counted(seen.vms, 'VM')})"
        makes_room = f"room for what leaves {name}"
        moved = np.flatnonzero(layout.place != search.home)
        for block, home in zip(moved.tolist(), search.home[moved].tolist(), strict=True):
            self.reasons.setdefault(block, empty if home == host else makes_room)


def _take_back(search: Search, before: Ints) -> None:
    for block in np.flatnonzero(search.layout.place != before).tolist():
        search.layout.move(block, int(before[block]))
