"""What nodes have left over beside the big VMs that fit: room that costs no rooms."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from balancerd.core.columns import rows_where
from balancerd.core.placing.layout import Bools, Floats, Ints
from balancerd.core.planner.defragment.columns import Column
from balancerd.core.planner.defragment.site import Place, Site

PLACES = 8  # left-over places that a VM is offered
AMPLE = 2  # places for each move: so many are enough, whatever else comes there
EPSILON = 1e-9


def plentiful(site: Site, moves: float) -> Bools:
    """By kind, whether VMs of it find room in what is left over though there are so many moves."""
    spare = Spare.beside(site, {})
    return np.array([spare.count(site, k) > AMPLE * moves for k in range(len(site.kinds))])


@dataclass(frozen=True, slots=True)
class Spare:
    """What nodes have left over beside the big VMs that are to fit, once all is done as chosen."""

    vcpus: Floats
    memory: Floats

    @classmethod
    def beside(cls, site: Site, chosen: dict[int, Column]) -> "Spare":
        """The left-over room of a choice."""
        vcpus, memory = site.free.vcpus.copy(), site.free.memory.copy()
        for sign, place, kind in changes_of(chosen):
            rows = [site.first[place[0]] + node for node in place[1]]
            vcpus[rows] += sign * site.kinds[kind].vcpus
            memory[rows] += sign * site.kinds[kind].memory
        rooms = replace(site.free, vcpus=vcpus, memory=memory).rooms(site.size)
        return cls(vcpus - rooms * site.size.vcpus, memory - rooms * site.size.memory)

    def count(self, site: Site, kind: int) -> int:
        """How many VMs of a kind would find room, if no others did."""
        wanted, hosts = site.kinds[kind], site.free.host
        each = np.floor(self.vcpus / max(wanted.vcpus, EPSILON) + EPSILON)
        if wanted.memory > 0:
            each = np.minimum(each, np.floor(self.memory / wanted.memory + EPSILON))
        each[~site.landing[kind][hosts] | self._elsewhere(site, kind)] = 0.0
        numbers = self._numbers(site)
        table = np.zeros((len(site.first) - 1, max(wanted.span, int(numbers.max(initial=0)) + 1)))
        table[hosts, numbers] = np.minimum(each, PLACES)
        # One that lies on two nodes needs both: the second best says how many there are of those.
        return int(np.sort(table, axis=1)[:, -wanted.span].sum())

    def _numbers(self, site: Site) -> Ints:
        """The number of each node on its host."""
        return np.asarray(np.arange(len(self.vcpus)) - np.array(site.first)[site.free.host])

    def _elsewhere(self, site: Site, kind: int) -> Bools:
        """Nodes that VMs of a kind are not bound to."""
        only = site.kinds[kind].only
        if not only:
            return np.zeros(len(self.vcpus), dtype=np.bool_)
        return ~np.isin(self._numbers(site), only)

    def places(self, site: Site, kind: int, source: int) -> list[Place]:
        """Where a VM of a kind costs no room: the tightest first, a few of them."""
        wanted, hosts = site.kinds[kind], site.free.host
        fits = self.vcpus >= wanted.vcpus - EPSILON
        fits &= self.memory >= wanted.memory * (1 - EPSILON)
        fits &= site.landing[kind][hosts] & (hosts != source) & ~self._elsewhere(site, kind)
        rows = rows_where(fits)
        numbers = self._numbers(site)[rows]
        tightest = np.argsort(self.vcpus[rows], kind="stable")
        found: dict[int, list[int]] = {}
        for index in tightest.tolist():
            found.setdefault(int(hosts[rows[index]]), []).append(int(numbers[index]))
            if sum(len(nodes) >= wanted.span for nodes in found.values()) >= PLACES:
                break
        return [
            (host, tuple(sorted(nodes[: wanted.span])))
            for host, nodes in found.items()
            if len(nodes) >= wanted.span
        ]

    def take(self, site: Site, kind: int, place: Place) -> None:
        """A VM of the kind has come there."""
        rows = [site.first[place[0]] + node for node in place[1]]
        self.vcpus[rows] -= site.kinds[kind].vcpus
        self.memory[rows] -= site.kinds[kind].memory


def changes_of(chosen: dict[int, Column]) -> Iterator[tuple[int, Place, int]]:
    """What a choice does to places: 1 for a VM that leaves, -1 for one that comes, and its kind."""
    for host, column in chosen.items():
        yield from ((1, (host, nodes), kind) for kind, nodes in column.scene.leaving)
        yield from ((-1, (host, nodes), kind) for kind, nodes in column.scene.coming)
        for node, choice in enumerate(column.choices):
            yield from ((1, (host, (node,)), kind) for kind in choice.leaving)
            yield from ((-1, (host, (node,)), kind) for kind in choice.coming)
