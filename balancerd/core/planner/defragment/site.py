"""What defragmenting works on: nodes with their free room, and VMs by kind.

VMs of one size are as good as each other, so they are one *kind*; which of them goes is decided
last. Considered are only VMs that may move alone and that no rule ties to others.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from balancerd.core.columns import rows_where
from balancerd.core.placing.constraints.fast import EPSILON
from balancerd.core.placing.layout import Bools, Layout
from balancerd.core.placing.room import Free, Size, free_room
from balancerd.core.planner.draft import Draft

KINDS_AT_MOST = 12
HOSTS_AT_MOST = 1000
NOBODY: Mapping[int, set[int]] = MappingProxyType({})

Place = tuple[int, tuple[int, ...]]  # a host's row, and nodes of it by their numbers


@dataclass(frozen=True, slots=True, order=True)
class Kind:
    """VMs that are interchangeable: nodes, and what they take of each; which hosts they reach, and
    which of those they were found to be kept off."""

    span: int
    vcpus: float
    memory: float
    signature: int
    only: tuple[int, ...] = ()  # the nodes that it can lie on; (): any
    kept_off: tuple[int, ...] = ()  # hosts


@dataclass(frozen=True, slots=True)
class Site:
    """The part of a layout that is looked at. `blocks`: by kind and place, who goes first first."""

    size: Size
    free: Free
    first: list[int]  # row in `free` of each host's first node, and one more for the end
    hosts: tuple[int, ...]
    kinds: tuple[Kind, ...]
    landing: Bools  # by kind and host: whether one may land there at all
    blocks: dict[tuple[int, Place], list[int]]


def site_of(draft: Draft, kept_off: Mapping[int, set[int]] = NOBODY) -> Site:
    """The hosts with most stranded room, and the commonest kinds of VMs on them.

    `kept_off`: hosts that rules were found to keep a VM off, though they take others of its size.
    """
    layout, size = draft.layout, Size(*draft.layout.big)
    free = free_room(layout)
    first = np.searchsorted(free.host, np.arange(len(layout.hosts) + 1))
    hosts = _hosts(draft, free, size)
    found = _blocks(draft, set(hosts), kept_off)
    common = Counter({kind: sum(map(len, places.values())) for kind, places in found.items()})
    ranked = sorted(common, key=lambda kind: (-common[kind], kind))[:KINDS_AT_MOST]
    kinds = tuple(sorted(ranked))
    blocks = {
        (number, place): there
        for number, kind in enumerate(kinds)
        for place, there in found[kind].items()
    }
    rows = [[b for there in found[kind].values() for b in there] for kind in kinds]
    landing = np.array([_landing(layout, of_kind) for of_kind in rows], dtype=np.bool_)
    for number, kind in enumerate(kinds):
        landing[number, list(kind.kept_off)] = False
    return Site(size, free, [int(row) for row in first], hosts, kinds, landing, blocks)


def _hosts(draft: Draft, free: Free, size: Size) -> tuple[int, ...]:
    """Hosts that VMs may leave or enter, those with most stranded room."""
    layout = draft.layout
    left = np.maximum(0.0, free.vcpus - free.rooms(size) * size.vcpus)
    of_host = np.zeros(len(layout.hosts))
    np.add.at(of_host, free.host, left)
    open_ = rows_where(draft.awake() & (layout.gives | layout.receives))
    ranked = open_[np.argsort(-of_host[open_], kind="stable")][:HOSTS_AT_MOST]
    return tuple(int(host) for host in np.sort(ranked))


def _blocks(
    draft: Draft, hosts: set[int], kept_off: Mapping[int, set[int]]
) -> dict[Kind, dict[Place, list[int]]]:
    """The VMs that may go, by kind and place; those that use least CPU first."""
    layout = draft.layout
    found: dict[Kind, dict[Place, list[int]]] = defaultdict(lambda: defaultdict(list))
    for block in rows_where(draft.movable()):
        number, host = int(block), int(layout.place[block])
        nodes = _lies_on(layout, number)
        if host in hosts and nodes and len(layout.blocks[number]) == 1:
            if number in layout.groups_of:
                continue
            kind = _kind(layout, number, len(nodes), kept_off.get(number, set()))
            found[kind][host, nodes].append(number)
    for places in found.values():
        for there in places.values():
            there.sort(key=lambda b: (layout.cpu[b], b))
    return found


def _kind(layout: Layout, block: int, span: int, kept_off: set[int]) -> Kind:
    only = layout.nodes.shares[block][0].only if layout.nodes else ()
    vcpus, memory = float(layout.vcpus[block]) / span, float(layout.memory[block]) / span
    signature = int(layout.signature[block])
    return Kind(span, vcpus, memory, signature, only, tuple(sorted(kept_off)))


def _lies_on(layout: Layout, block: int) -> tuple[int, ...]:
    """The nodes that a VM lies on; none where that is not known well enough to reckon with."""
    if layout.nodes is None:
        return (0,)
    shares, seat = layout.nodes.shares.get(block, ()), layout.seat(block)
    return seat[0] if len(seat) == 1 and len(seat[0]) == shares[0].span else ()


def _landing(layout: Layout, blocks: list[int]) -> Bools:
    """Hosts where a VM like these may land as far as rules and CPU are concerned."""
    bands = layout.policy.thresholds.cpu
    variance = layout.used_variance + float(layout.variance[blocks].mean())
    cpu = layout.used_cpu + float(layout.cpu[blocks].mean()) + layout.factor * np.sqrt(variance)
    now = layout.used_now + float(layout.now[blocks].mean())
    fits = cpu <= bands.landing * layout.cpu_capacity * (1 + EPSILON)
    fits &= now <= bands.release * layout.cpu_capacity * (1 + EPSILON)
    reachable = layout.reachable[layout.signature[blocks[0]]]
    return np.asarray(fits & layout.receives & reachable)
