"""Pools of huge pages as arrays: what VMs take of them, by size of page and host.

There are pools only on a site where some VM has huge pages. A VM that names no size of page is
charged by itself, against the largest pool of its host: which one it means is not known here, and
its host objects before the move if there is too little.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from balancerd.core.columns import Bools, Floats, Ints
from balancerd.core.model import VM, Host
from balancerd.core.same import Same


@dataclass(slots=True)
class Pools:
    """`used` changes as moves are tried; nothing else. Bytes."""

    sizes: tuple[int, ...]  # of a page
    capacity: Floats  # sizes × hosts
    used: Floats  # sizes × hosts
    needs: Mapping[int, Floats]  # block -> by size; blocks without huge pages are left out

    def copy(self) -> "Pools":
        """Others that can be changed without changing these."""
        return replace(self, used=self.used.copy())

    def takes(self, block: int, rows: Ints | int) -> Bools:
        """Whether hosts have the pages that a block needs, beside those of the VMs there."""
        need = self.needs.get(block)
        if need is None:
            return np.ones(np.shape(rows), dtype=np.bool_)
        return self.fit(need, self.capacity[:, rows] - self.used[:, rows])

    def fit(self, need: Floats, free: Floats) -> Bools:
        """Whether what is needed, by size, is free; the last axis of `free` runs over hosts."""
        wanted = need if free.ndim == 1 else need[:, np.newaxis]
        return np.asarray(~((wanted > free) & (wanted > 0)).any(axis=0))

    def settle(self, place: Ints) -> None:
        """Put every block on the host where it is."""
        for block in self.needs:
            self.charge(block, int(place[block]))

    def demand(self, row: int, blocks: int) -> Floats:
        """What each of so many blocks takes in pages of one size."""
        demand = np.zeros(blocks)
        for block, need in self.needs.items():
            demand[block] = need[row]
        return demand

    def lacking(self, block: int, host: int) -> tuple[int, float, float] | None:
        """The first size of page that a host has too few of: it, what would be used, and the most;
        None where it has enough."""
        for row, size in enumerate(self.sizes):
            need, most = self.needs[block][row], self.capacity[row, host]
            after = self.used[row, host] + need
            if need > 0 and after > most:
                return size, float(after), float(most)
        return None

    def charge(self, block: int, host: int, sign: int = 1) -> None:
        """Add a block's pages to a host, or take them away again."""
        need = self.needs.get(block)
        if need is not None:
            self.used[:, host] += sign * need


@lru_cache(maxsize=1)
def _any_paged(vms: Same[Mapping[str, VM]]) -> bool:
    return any(vm.huge_pages for vm in vms.value.values())


def lay_out_pools(
    hosts: Sequence[Host], blocks: Sequence[Sequence[str]], vms: Mapping[str, VM]
) -> Pools | None:
    """The pools of a site, with nothing in use yet; None where no VM has huge pages."""
    if not _any_paged(Same(vms)):
        return None
    paged = {
        block: [vms[name] for name in names if vms[name].huge_pages]
        for block, names in enumerate(blocks)
        if any(vms[name].huge_pages for name in names)
    }
    found = {pages.size for paging in paged.values() for vm in paging for pages in vm.huge_pages}
    sizes = tuple(sorted(found))
    if not sizes:
        return None
    capacity = [[float(pool_of(host, size)) for host in hosts] for size in sizes]
    needs = {
        block: np.array([sum(_need(vm, size) for vm in paging) for size in sizes])
        for block, paging in paged.items()
    }
    return Pools(sizes, np.array(capacity), np.zeros((len(sizes), len(hosts))), needs)


def pool_of(host: Host, size: int) -> int:
    """Bytes that a host has in pages of a size; of no named size in its largest pool."""
    return max((pool.memory for pool in host.huge_pages if size in (0, pool.size)), default=0)


def _need(vm: VM, size: int) -> float:
    return float(sum(max(0, pages.memory) for pages in vm.huge_pages if pages.size == size))
