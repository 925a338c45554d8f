"""What if a host failed: would all of its VMs find room on the others?

Room is CPU and memory up to given shares, on hosts that are on, and only where each VM may be at
all. Rules among VMs do not count here: after a failure, running somewhere comes first. What could
not run elsewhere in any case (a host device, a disk that only its host has) is not counted either.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from balancerd.core.columns import rows_where
from balancerd.core.model import ExclusionKind
from balancerd.core.placing.layout import Bools, Floats, Ints, Layout

TIED = (ExclusionKind.HOST_DEVICE, ExclusionKind.LOCAL_STORAGE)
EPSILON = 1e-9


@dataclass(frozen=True, slots=True)
class _Rooms:
    """What is free on hosts that are on; nothing on the others."""

    cpu: Floats
    memory: Floats
    pages: Floats | None  # by size and host; None where no VM has huge pages


@dataclass(frozen=True, slots=True)
class Failover:
    """What would have to move if a host failed, worked out once for many questions."""

    layout: Layout
    order: Ints  # the blocks that count, by host
    bounds: Ints  # where those of each host begin in `order`
    picky: Bools  # hosts with blocks that may not be everywhere, or that need huge pages
    cpu: Floats  # of all such blocks of each host
    memory: Floats
    largest: tuple[float, float]  # CPU and memory that any such block takes at most

    @classmethod
    def of(cls, layout: Layout) -> "Failover":
        """For a layout as it is now; a changed one needs another."""
        tied = [b for b, refusal in layout.fixed.items() if refusal.constraint in TIED]
        counted = np.ones(len(layout.blocks), dtype=np.bool_)
        counted[tied] = False
        blocks, count = rows_where(counted), len(layout.hosts)
        place = layout.place[blocks]
        bound = ~np.asarray(layout.reachable.all(axis=1))[layout.signature[blocks]]
        bound |= np.isin(blocks, list(layout.pools.needs) if layout.pools else [])
        order = np.argsort(place, kind="stable")
        cpu, memory = layout.cpu[blocks], layout.memory[blocks]
        return cls(
            layout,
            blocks[order],
            np.searchsorted(place[order], np.arange(count + 1)),
            np.bincount(place[bound], minlength=count) > 0,
            np.bincount(place, cpu, count).astype(np.float64),
            np.bincount(place, memory, count).astype(np.float64),
            (float(cpu.max(initial=0.0)), float(memory.max(initial=0.0))),
        )

    def homeless(self, on: Bools, cpu: float, memory: float) -> list[int]:
        """Hosts whose VMs would not all fit on the others that are `on` if they failed.

        The others take VMs up to the shares `cpu` and `memory` of their capacity. A host is left
        out only if a placement was found for all of its VMs, or is sure to exist.
        """
        layout, rooms = self.layout, _rooms(self.layout, on, cpu, memory)
        busy = on & (np.diff(self.bounds) > 0)
        if self._all_surely_fit(rooms, busy):
            busy &= self.picky
        found = []
        for host in rows_where(busy):
            blocks = self.order[self.bounds[host] : self.bounds[host + 1]]
            if not self.picky[host] and _surely_fit(layout, blocks, rooms, int(host)):
                continue
            if not any(
                _fit(layout, sorted(blocks, key=lambda b: (-size[b], b)), rooms, int(host))
                for size in (layout.memory, layout.cpu)
            ):
                found.append(int(host))
        return found

    def _all_surely_fit(self, rooms: _Rooms, busy: Bools) -> bool:
        """`_surely_fit` for every host at once, with the largest block and the fullest host."""
        share = np.minimum(
            (rooms.cpu - self.largest[0]) / max(float(self.cpu[busy].max(initial=0)), EPSILON),
            (rooms.memory - self.largest[1])
            / max(float(self.memory[busy].max(initial=0)), EPSILON),
        )
        share = np.maximum(share, 0.0)
        return float(share.sum() - share.max(initial=0.0)) >= 2.0


def _rooms(layout: Layout, on: Bools, cpu: float, memory: float) -> _Rooms:
    free_cpu = np.where(on, cpu * layout.cpu_capacity - layout.used_cpu, -1.0)
    free_memory = np.where(on, memory * layout.memory_capacity - layout.used_memory, -1.0)
    if not layout.policy.capacity.enforce_memory:
        free_memory = np.where(on, np.inf, -1.0)
    pools = layout.pools
    return _Rooms(free_cpu, free_memory, pools.capacity - pools.used if pools else None)


def _surely_fit(layout: Layout, blocks: Ints, rooms: _Rooms, host: int) -> bool:
    """A test that needs no placement.

    A host that refuses a block has less free, of CPU or of memory, than the largest block takes: so
    of one of them more than (free - largest) is in use by what was placed there. Over all hosts the
    shares of what is to be placed add up to at most 1 for each resource. Where the free shares,
    the smaller one of each host, add up to 2, a block that is refused by every host is impossible.
    """
    cpu, memory = layout.cpu[blocks], layout.memory[blocks]
    share = np.minimum(
        (rooms.cpu - cpu.max()) / max(float(cpu.sum()), EPSILON),
        (rooms.memory - memory.max()) / max(float(memory.sum()), EPSILON),
    )
    share[host] = 0.0
    return float(np.maximum(share, 0.0).sum()) >= 2.0


def _fit(layout: Layout, blocks: Sequence[int], rooms: _Rooms, host: int) -> bool:
    """Place the blocks in order, each where it leaves least memory; whether all found a place."""
    cpu, memory = rooms.cpu.copy(), rooms.memory.copy()
    pages = None if rooms.pages is None else rooms.pages.copy()
    cpu[host] = -1.0
    for block in blocks:
        open_ = layout.reachable[layout.signature[block]] & (cpu >= layout.cpu[block] - EPSILON)
        need = layout.pools.needs.get(block) if layout.pools else None
        if layout.pools and need is not None and pages is not None:
            open_ &= layout.pools.fit(need, pages)
        rows = rows_where(open_ & (memory >= layout.memory[block] - EPSILON))
        if not len(rows):
            return False
        row = rows[np.lexsort((cpu[rows], memory[rows]))[0]]
        cpu[row] -= layout.cpu[block]
        memory[row] -= layout.memory[block]
        if need is not None and pages is not None:
            pages[:, row] -= need
    return True
