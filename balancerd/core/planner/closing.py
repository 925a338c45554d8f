"""Closing one host after the other: what is on it finds a place elsewhere, or it stays as it is.

The host that frees most for the room that goes with it is next. Its blocks go to the fullest of the
most efficient hosts that have room; where none has, the search makes some. In the end another host
may be emptied in the place of one that was: what is on that one then need not move.
"""

from dataclasses import dataclass, field

import numpy as np

from balancerd.core.columns import rows_where
from balancerd.core.placing.layout import Bools, Floats, Ints
from balancerd.core.plan import Refusal
from balancerd.core.planner.draft import Draft
from balancerd.core.planner.filling import ROUNDING, Filling
from balancerd.core.planner.search import GAIN, VISIT, Search
from balancerd.core.planner.settle import settle
from balancerd.core.planner.swaps import Swap, Swaps
from balancerd.core.units import counted, format_size

SETTLE = 1_500_000  # pairs weighed to make room for what is on one host
SWAP = 600_000  # pairs weighed to empty one host in the place of another
MORE = 1e-6  # hosts' worth, by which there is more room
SWAPS = 2_400_000  # pairs weighed in vain for all of this, after which no such attempt is made
Obstacle = tuple[str, str, str]  # why a host stays on: the kind, its numbers, what would help


@dataclass(slots=True)
class Closing:
    """A search, the hosts that it may still close with what each is worth, and why blocks moved."""

    draft: Draft
    search: Search
    host_price: Floats
    filling: Filling
    closable: Bools
    sizes: Ints  # VMs of each block
    emptied: dict[int, bool] = field(default_factory=dict)  # hosts, and whether they were open
    obstacles: dict[int, Obstacle] = field(default_factory=dict)  # why hosts stay on
    moved_for: dict[int, int] = field(default_factory=dict)  # blocks, and the host they moved for
    in_vain: int = 0  # work done for hosts that could not be closed
    swaps_in_vain: int = 0  # and for those that could not be in the place of others
    cramped: list[float] = field(default_factory=list)  # hosts' worth spare that did not suffice
    may_close: Bools = field(init=False)
    unplaced: Bools = field(init=False)  # those for whose VMs no places were found when last tried
    useful: Floats = field(init=False)  # reference cores of each host that could be put to use

    def __post_init__(self) -> None:
        self.may_close = self.closable.copy()
        self.unplaced = np.zeros_like(self.closable)
        self.useful = self.filling.useful()

    def next_host(self, saved: Floats) -> int | None:
        """The host that saves most for the room that goes with it; None where none does. `saved`
        is of now."""
        if not self.closable.any():
            return None
        promised = np.where(self.closable, saved, -np.inf)
        host = int(np.argmax(promised / self.useful))
        return host if promised[host] > 0 else None

    def saved(self) -> Floats:
        """What it saves to empty each host, less what its moves cost."""
        layout, search = self.search.layout, self.search
        staying = search.price * (layout.place == search.home)
        return self.host_price - np.bincount(layout.place, staying, len(layout.hosts))

    def close(self, host: int, budget: int) -> bool:
        """Empty a host if there is room elsewhere and that is worth it; whether it was. `budget`:
        pairs weighed."""
        search, layout = self.search, self.search.layout
        self.closable[host] = self.unplaced[host] = False
        was_open, before, work = bool(search.open_[host]), layout.place.copy(), search.work
        moves, moved = self._leaving(host), self._moved()
        most = self._most(moved)
        obstacle = self._shut(host, moves, most)
        if moves > most:
            self._leave_out(self.draft.room() - moved)
        if obstacle is None:
            obstacle = self._empty(host, most, budget)
            if obstacle is None:
                self.emptied[host] = was_open
                self._moved_for(host)
                return True
            if self.unplaced[host]:
                self.cramped.append(float(self.filling.spare().min()))
            _take_back(search, before)
            if host not in self.obstacles:
                self.draft.counts.update(search.turning_down(search.on(host)))
        self.obstacles.setdefault(host, obstacle)
        self.in_vain += search.work - work
        search.open_[host], search.own[host] = was_open, True
        return False

    def _shut(self, host: int, moves: int, most: int) -> Obstacle | None:
        """Let a host take no more VMs; what is sure to be in the way of emptying it, or None."""
        self.search.open_[host] = self.search.own[host] = False
        self._limit(moves)
        return self._too_many(moves, most) or self._shortage(host)

    def _leaving(self, host: int) -> int:
        """How many VMs that are at home on a host would leave it."""
        layout, home = self.search.layout, self.search.home
        return int(layout.sizes[(layout.place == host) & (home == host)].sum())

    def swap(self) -> bool:
        """Empty others in the place of hosts that were, as long as that costs less; whether any.

        What promises most leaves least room. After one in vain, those come first that leave more.
        """
        tried, swapped, enough = set[Swap](), False, self._too_little() + MORE
        least = enough
        while self.in_vain + self.swaps_in_vain < SWAPS:
            swaps, work = self._swaps(), self.search.work
            found = swaps.best(tried, least)
            if found is None and not least:
                break
            if found is None:
                least = enough = 0.0
            elif self._swapped(found):
                tried, swapped, least = set(), True, enough
            else:
                tried.add(found)
                least = max(least, swaps.left(found) + MORE)
                self.swaps_in_vain += self.search.work - work
        return swapped

    def _too_little(self) -> float:
        """With how much to spare two hosts could not be emptied: with one it may be its own VMs."""
        return sorted(self.cramped)[-2] if len(self.cramped) > 1 else 0.0

    def _swaps(self) -> Swaps:
        """What might be swapped: blocks of hosts kept on would be at home again, others leave."""
        search, layout, count = self.search, self.search.layout, len(self.search.layout.hosts)
        is_home, on = layout.place == search.home, layout.used_count > 0
        return Swaps(
            emptied=np.array(sorted(self.emptied), dtype=np.int64),
            on=rows_where(self.may_close & on),
            kept=np.bincount(search.home, search.price * ~is_home, count) - self.host_price,
            closed=self.host_price - np.bincount(layout.place, search.price * is_home, count),
            holds=self.filling.most() / self.filling.host()[:, np.newaxis],
            spare=self.filling.spare(),
        )

    def _swapped(self, swap: Swap) -> bool:
        """Carry a swap out; all as before unless that costs less."""
        search, layout = self.search, self.search.layout
        before, cost, work = layout.place.copy(), search.cost(), search.work
        limits = search.open_.copy(), search.own.copy(), search.cpu_limit
        for kept in swap.kept:
            search.open_[kept], search.own[kept] = self.emptied[kept], True
            for block in rows_where((search.home == kept) & (layout.place != kept)).tolist():
                layout.move(block, kept)
        is_done = all(self._vacated(host) for host in swap.hosts)
        gain = cost - search.cost()
        gain += float(self.host_price[[*swap.hosts]].sum() - self.host_price[[*swap.kept]].sum())
        if not is_done or gain <= GAIN:
            _take_back(search, before)
            search.open_, search.own, search.cpu_limit = limits
            search.work = max(search.work, work + VISIT)
            return False
        self._note_swap(swap, limits[0], gain)
        return True

    def _vacated(self, host: int) -> bool:
        """Empty a host in the place of another; whether that could be."""
        most = self._most(self._moved())
        obstacle = self._shut(host, self._leaving(host), most) or self._empty(host, most, SWAP)
        return obstacle is None

    def _note_swap(self, swap: Swap, was_open: Bools, gain: float) -> None:
        """Remember which hosts are emptied by now, and whom blocks move for."""
        names = [self.search.layout.hosts[host] for host in swap.hosts]
        instead = f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} emptied in its place"
        for kept in swap.kept:
            self.obstacles[kept] = "dearer to empty", f"{instead}, for {gain:.4g} less", ""
            del self.emptied[kept]
        self.moved_for = {b: host for b, host in self.moved_for.items() if host not in swap.kept}
        for host in swap.hosts:
            self.obstacles.pop(host, None)
            self.emptied[host] = bool(was_open[host])
            self._moved_for(host)

    def _most(self, moved: int) -> int:
        """How many more VMs may move for one host, when so many do already."""
        room = self.draft.room() - moved
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
        asked, free = self.filling.used_on(host), self.filling.free()
        if asked[0] > free[0] * (1 + ROUNDING):
            detail = f"its VMs expect {asked[0]:.2f} cores, the others have {free[0]:.2f} to fill"
            return "no room", detail, f"free {asked[0] - free[0]:.2f} cores on other hosts"
        if asked[-1] > free[-1] * (1 + ROUNDING):
            room, more = format_size(free[-1]), format_size(asked[-1] - free[-1])
            detail = f"it holds {format_size(asked[-1])}, the others have room for {room}"
            return "no room", detail, f"free {more} of memory on other hosts"
        return None

    def _out_of_reach(self, host: int) -> Obstacle | None:
        """Whether too little of what is free is where VMs may go."""
        if not self.filling.scant:
            return None
        asked, reachable = np.array(self.filling.used_on(host)), np.array(self.filling.reachable())
        if (asked <= reachable * (1 + ROUNDING)).all():
            return None
        vm = self.search.layout.blocks[self.search.layout.blocks_on(host)[0]][0]
        detail = "too few VMs may go to where there is room"
        return "no room", detail, f"balancerctl why-not {vm} HOST"

    def _empty(self, host: int, most: int, budget: int) -> Obstacle | None:
        """Move everything off the host for less than it saves; why that cannot be, or None."""
        if obstacle := self._out_of_reach(host):
            return obstacle
        search, moved, cost = self.search, self._moved(), self.search.cost()
        search.soften()
        blocks = search.layout.blocks_on(host)
        size = {b: self._shares(b, host) for b in blocks}
        for block in sorted(blocks, key=lambda b: (-size[b], b)):
            if not self._insert(block):
                vm = search.layout.blocks[block][0]
                return "no room", f"no other host may take {vm}", f"balancerctl why-not {vm} HOST"
        if not settle(search, budget):
            self.unplaced[host] = True
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
        targets = rows_where(search.open_)
        cost = search.burden(np.array([block]), targets)[0] if len(targets) else np.zeros(0)
        while np.isfinite(cost).any():
            ties = rows_where(cost <= cost.min() + ROUNDING)
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
        return int(rows_where(hosts == best)[0])

    def _moved_for(self, host: int) -> None:
        """Remember of all blocks that are elsewhere by now, and were not before, for which host."""
        for block in rows_where(self.search.layout.place != self.search.home).tolist():
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
        untried, pays = self.closable & (self.search.layout.used_count > 0), self.saved() > 0
        for kind, hosts in (("too dear to empty", ~pays), ("not tried", pays)):
            count = int((untried & hosts).sum())
            if count:  # this may not be the only search
                self.draft.counts[kind] = max(self.draft.counts[kind], count)
        for refusal in self.search.forbidden.values():
            self.draft.note(refusal)


def _take_back(search: Search, before: Ints) -> None:
    for block in rows_where(search.layout.place != before).tolist():
        search.layout.move(block, int(before[block]))
