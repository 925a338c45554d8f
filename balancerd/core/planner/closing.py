"""Closing one host after the other: what is on it finds a place elsewhere, or it stays as it is.

The host that frees most for the room that goes with it is next. Its blocks go to the fullest of the
most efficient hosts that have room; where none has, the search makes some. In the end another host
may be emptied in the place of one that was: what is on that one then need not move.
"""

from collections.abc import Set
from dataclasses import dataclass, field

import numpy as np

from balancerd.core.placing.layout import Bools, Floats, Ints
from balancerd.core.plan import Refusal
from balancerd.core.planner.draft import Draft
from balancerd.core.planner.search import GAIN, VISIT, Search
from balancerd.core.planner.settle import settle
from balancerd.core.units import counted, format_size

SETTLE = 1_500_000  # pairs weighed to make room for what is on one host
SWAP = 300_000  # pairs weighed to empty one host in the place of another
SWAPS = 600_000  # pairs weighed for such attempts in vain, after which none is made
CANDIDATES = 8  # hosts of each kind that are thought of for it
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
    emptied: dict[int, bool] = field(default_factory=dict)  # hosts, and whether they were open
    obstacles: dict[int, Obstacle] = field(default_factory=dict)  # why hosts stay on
    moved_for: dict[int, int] = field(default_factory=dict)  # blocks, and the host they moved for
    in_vain: int = 0  # work done for hosts that could not be closed
    swaps_in_vain: int = 0  # and for those that could not be in the place of others
    may_close: Bools = field(init=False)

    def __post_init__(self) -> None:
        self.may_close = self.closable.copy()

    def next_host(self) -> int | None:
        """The host that saves most for the room that goes with it; None where none does."""
        if not self.closable.any():
            return None
        saved = np.where(self.closable, self._saved(), -np.inf)
        host = int(np.argmax(saved / self.useful))
        return host if saved[host] > 0 else None

    def _saved(self) -> Floats:
        """What it saves to empty each host, less what its moves cost."""
        layout, search = self.search.layout, self.search
        staying = search.price * (layout.place == search.home)
        return self.host_price - np.bincount(layout.place, staying, len(layout.hosts))

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
            obstacle = self._empty(host, most, SETTLE)
            if obstacle is None:
                self.emptied[host] = was_open
                self._moved_for(host)
                return
            _take_back(search, before)
            self.draft.counts.update(search.turning_down(search.on(host)))
        self.obstacles.setdefault(host, obstacle)
        self.in_vain += search.work - work
        search.open_[host], search.own[host] = was_open, True

    def swap(self) -> bool:
        """Empty others in the place of hosts that were, as long as that costs less; whether any."""
        tried, swapped = set[tuple[int, int]](), False
        while self.swaps_in_vain < SWAPS and (pair := self._best_swap(tried)):
            tried.add(pair)
            work = self.search.work
            if self._swapped(*pair):
                tried.clear()
                swapped = True
            else:
                self.swaps_in_vain += self.search.work - work
        return swapped

    def _best_swap(self, tried: Set[tuple[int, int]]) -> tuple[int, int] | None:
        """An emptied host and one that is on, which promise most if they change their parts.

        Blocks of the one would be at home again, those of the other leave theirs.
        """
        search, layout, count = self.search, self.search.layout, len(self.search.layout.hosts)
        is_home = layout.place == search.home
        back = np.bincount(search.home, search.price * ~is_home, count) - self.host_price
        gone = self.host_price - np.bincount(layout.place, search.price * is_home, count)
        on = np.flatnonzero(self.may_close & (layout.used_count > 0)).tolist()
        emptied = sorted(self.emptied, key=lambda host: (-back[host], host))[:CANDIDATES]
        on = sorted(on, key=lambda host: (-gone[host], host))[:CANDIDATES]
        pairs = [(x, y) for x in emptied for y in on if (x, y) not in tried]
        best = max(pairs, key=lambda pair: back[pair[0]] + gone[pair[1]], default=None)
        return best if best and back[best[0]] + gone[best[1]] > GAIN else None

    def _swapped(self, kept: int, host: int) -> bool:
        """Keep an emptied host on and empty another; all as before unless that costs less."""
        search, layout = self.search, self.search.layout
        before, cost, work = layout.place.copy(), search.cost(), search.work
        limits = search.open_.copy(), search.own.copy(), search.cpu_limit
        search.open_[kept], search.own[kept] = self.emptied[kept], True
        for block in np.flatnonzero((search.home == kept) & (layout.place != kept)).tolist():
            layout.move(block, kept)
        moves = int(layout.sizes[(layout.place == host) & (search.home == host)].sum())
        search.open_[host] = search.own[host] = False
        self._limit(moves)
        most = self._most()
        obstacle = self._too_many(moves, most) or self._shortage(host)
        obstacle = obstacle or self._empty(host, most, SWAP)
        gain = cost - search.cost() + float(self.host_price[host] - self.host_price[kept])
        if obstacle or gain <= GAIN:
            _take_back(search, before)
            search.open_, search.own, search.cpu_limit = limits
            search.work = max(search.work, work + VISIT)
            return False
        detail = f"{layout.hosts[host]} is emptied in its place, for {gain:.4g} less"
        self.obstacles[kept] = "dearer to empty", detail, ""
        self.obstacles.pop(host, None)
        self.emptied[host] = bool(limits[0][host])
        del self.emptied[kept]
        self.moved_for = {b: other for b, other in self.moved_for.items() if other != kept}
        self._moved_for(host)
        return True

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

    def _empty(self, host: int, most: int, budget: int) -> Obstacle | None:
        """Move everything off the host for less than it saves; why that cannot be, or None."""
        search, moved, cost = self.search, self._moved(), self.search.cost()
        search.soften()
        blocks = search.layout.blocks_on(host)
        size = {b: self._shares(b, host) for b in blocks}
        for block in sorted(blocks, key=lambda b: (-size[b], b)):
            if not self._insert(block):
                vm = search.layout.blocks[block][0]
                return "no room", f"no other host may take {vm}", f"balancerctl why-not {vm} HOST"
        if not settle(search, budget):
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
        """Put a block where it costs least: of equals on the most efficient, then the fullest, of
        those about as full on the one with the widest and shortest way there."""
        search, layout = self.search, self.search.layout
        targets = np.flatnonzero(search.open_)
        cost = search.burden(np.array([block]), targets)[0] if len(targets) else np.zeros(0)
        while np.isfinite(cost).any():
            ties = np.flatnonzero(cost <= cost.min() + ROUNDING)
            best = ties[self._preferred(block, targets[ties])]
            if not search.forbids(block, int(targets[best])):
                layout.move(block, int(targets[best]))
                return True
            cost[best] = np.inf
        return False

    def _preferred(self, block: int, hosts: Ints) -> int:
        """Which of some hosts it is to be; the first of equals."""
        layout = self.search.layout
        price = layout.peak[hosts] / np.maximum(layout.cpu_capacity[hosts], ROUNDING)
        efficient = hosts[price == price.min()]
        home = int(self.search.home[block])
        best = self.draft.paths.nearest(home, efficient, -self._use(efficient))
        return int(np.flatnonzero(hosts == best)[0])

    def _moved_for(self, host: int) -> None:
        """Remember of all blocks that are elsewhere by now, and were not before, for which host."""
        for block in np.flatnonzero(self.search.layout.place != self.search.home).tolist():
            self.moved_for.setdefault(block, host)

    def reasons(self) -> dict[int, str]:
        """Why each block moves that is not at home."""
        search, layout, found = self.search, self.search.layout, dict[int, str]()
        for block, host in self.moved_for.items():
            name, seen = layout.hosts[host], self.draft.assessments[host]
            empty = f"empty {name} (CPU {seen.cpu_mean:.0%}, {counted(seen.vms, 'VM')})"
            is_own = int(search.home[block]) == host
            found[block] = empty if is_own else f"room for what leaves {name}"
        return found

    def note(self) -> None:
        """Say of the hosts that stay on why they do, and what rules forbade."""
        for host, obstacle in self.obstacles.items():
            self.draft.note(Refusal("", self.search.layout.hosts[host], *obstacle))
        untried, pays = self.closable & (self.search.layout.used_count > 0), self._saved() > 0
        for kind, hosts in (("too dear to empty", ~pays), ("not tried", pays)):
            count = int((untried & hosts).sum())
            if count:  # this may not be the only search
                self.draft.counts[kind] = max(self.draft.counts[kind], count)
        for refusal in self.search.forbidden.values():
            self.draft.note(refusal)


def _take_back(search: Search, before: Ints) -> None:
    for block in np.flatnonzero(search.layout.place != before).tolist():
        search.layout.move(block, int(before[block]))
