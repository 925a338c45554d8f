"""From what hosts should do to moves, each accepted by the rules when its turn comes."""

from collections import Counter, defaultdict
from dataclasses import dataclass

from balancerd.core.placing.constraints import refuses
from balancerd.core.planner.defragment.columns import Column
from balancerd.core.planner.defragment.site import Place, Site
from balancerd.core.planner.draft import Draft


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a VM of a kind is to come."""

    kind: int
    place: Place


def carry_out(draft: Draft, site: Site, chosen: dict[int, Column]) -> bool:
    """Decide the moves of a choice as far as they can be made in some order; whether all were."""
    leaving, slots = _leaving(site, chosen), _slots(chosen)
    open_ = Counter(slot.place[0] for slot in slots)
    while slots:
        waiting = [slot for slot in slots if not _fill(draft, site, slot, leaving, open_)]
        if len(waiting) == len(slots):
            break
        slots = waiting
    return not any(leaving.values())


def _leaving(site: Site, chosen: dict[int, Column]) -> dict[int, list[tuple[Place, int]]]:
    """The VMs to leave, by kind; those whose host gains most for its moves first."""
    leaving: dict[int, list[tuple[Place, int]]] = defaultdict(list)
    ranked = sorted(chosen, key=lambda h: (-chosen[h].gain / max(chosen[h].change[-1], 1), h))
    for host in ranked:
        column = chosen[host]
        goes: Counter[tuple[int, Place]] = Counter()
        if column.scene.leaving is not None:
            kind, nodes = column.scene.leaving
            goes[kind, (host, nodes)] += 1
        for node, choice in enumerate(column.choices):
            goes.update((kind, (host, (node,))) for kind in choice.leaving)
        for (kind, place), count in goes.items():
            leaving[kind] += [(place, block) for block in site.blocks[kind, place][:count]]
    return leaving


def _slots(chosen: dict[int, Column]) -> list[Slot]:
    """Where VMs are to come: first where there is room already."""
    slots = []
    for host in sorted(chosen, key=lambda h: (int(chosen[h].change[-1]), h)):
        column = chosen[host]
        if column.scene.coming is not None:
            kind, nodes = column.scene.coming
            slots.append(Slot(kind, (host, nodes)))
        slots += [
            Slot(kind, (host, (node,)))
            for node, choice in enumerate(column.choices)
            for kind in choice.coming
        ]
    return slots


def _fill(
    draft: Draft,
    site: Site,
    slot: Slot,
    leaving: dict[int, list[tuple[Place, int]]],
    open_: Counter[int],
) -> bool:
    """Move the first VM that may go into the slot; those that others wait for go first."""
    if draft.room() < 1:
        return False
    candidates = leaving[slot.kind]
    for place, block in sorted(candidates, key=lambda c: open_[c[0][0]] == 0):
        if place[0] != slot.place[0] and _may(draft, block, slot.place):
            seat = (slot.place[1],) if draft.layout.nodes else None
            draft.move(block, slot.place[0], _reason(draft, site, place, slot.place), seat)
            candidates.remove((place, block))
            open_[slot.place[0]] -= 1
            return True
    return False


def _may(draft: Draft, block: int, target: Place) -> bool:
    nodes = draft.layout.nodes
    if nodes is not None and not nodes.fits(block, target[0], (target[1],)):
        return False
    return refuses(draft.layout, block, target[0]) is None


def _reason(draft: Draft, site: Site, source: Place, target: Place) -> str:
    layout = draft.layout
    size = f"{site.size.vcpus:g} vCPUs"
    if layout.nodes is None:
        return f"make room for {size} on {layout.hosts[source[0]]}"
    here, there = (" and ".join(map(str, place[1])) for place in (source, target))
    return f"make room for {size} on {layout.hosts[source[0]]}, node {here}; lands on node {there}"
