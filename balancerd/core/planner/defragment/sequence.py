"""From what hosts should do to moves, each accepted by the rules when its turn comes."""

from collections import Counter, defaultdict
from dataclasses import dataclass

from balancerd.core.placing.constraints import forbidding, refuses
from balancerd.core.planner.defragment.columns import Column
from balancerd.core.planner.defragment.site import Place, Site
from balancerd.core.planner.defragment.spare import Spare, changes_of
from balancerd.core.planner.draft import Draft


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a VM of a kind is to come."""

    kind: int
    place: Place


@dataclass(frozen=True, slots=True)
class Carried:
    """What came of a choice: whether all its moves were made, and which hosts rules were found to
    keep a VM off that was left over."""

    is_whole: bool
    kept_off: dict[int, set[int]]


def carry_out(draft: Draft, site: Site, chosen: dict[int, Column]) -> Carried:
    """Decide the moves of a choice as far as they can be made in some order.

    VMs of kinds for which no slots are meant go where they cost no room.
    """
    leaving, slots = _leaving(site, chosen), _slots(chosen)
    spare = Spare.beside(site, chosen)
    open_ = Counter(slot.place[0] for slot in slots)
    unmeant = set(leaving) - {slot.kind for slot in slots}
    while draft.room() > 0:
        decided = len(draft.steps)
        slots = [slot for slot in slots if not _fill(draft, site, slot, leaving, open_)]
        for kind in sorted(unmeant):
            _spread_out(draft, site, kind, leaving[kind], spare)
        if len(draft.steps) == decided:
            if unmeant == set(leaving):
                break
            unmeant = set(leaving)  # what finds no slot in this order
    kept_off = _refused(draft, site, slots, leaving, spare) if draft.room() > 0 else {}
    return Carried(not any(leaving.values()), kept_off)


def _refused(
    draft: Draft,
    site: Site,
    slots: list[Slot],
    leaving: dict[int, list[tuple[Place, int]]],
    spare: Spare,
) -> dict[int, set[int]]:
    """Say why those that were to leave found the places for their kind closed; off which of these
    hosts rules keep them, whatever room there is."""
    kept_off: dict[int, set[int]] = defaultdict(set)
    for kind in sorted(leaving):
        meant = {slot.place[0] for slot in slots if slot.kind == kind}
        for source, block in leaving[kind]:
            left_over = {host for host, _ in spare.places(site, kind, source[0])}
            for host in sorted((meant | left_over) - {source[0]}):
                refusal = refuses(draft.layout, block, host)
                if refusal is not None:
                    draft.note(refusal)
                if forbidding(draft.layout, block, host) is not None:
                    kept_off[block].add(host)
    return kept_off


def _spread_out(
    draft: Draft, site: Site, kind: int, leaving: list[tuple[Place, int]], spare: Spare
) -> None:
    """Move VMs of a kind to where they cost no room, as many as find such a place now."""
    for source, block in list(leaving):
        places = spare.places(site, kind, source[0]) if draft.room() > 0 else []
        target = next((place for place in places if _may(draft, block, place)), None)
        if target is not None:
            _move(draft, site, block, source, target)
            leaving.remove((source, block))
            spare.take(site, kind, target)


def _leaving(site: Site, chosen: dict[int, Column]) -> dict[int, list[tuple[Place, int]]]:
    """The VMs to leave, by kind; those whose host gains most for its moves first."""
    leaving: dict[int, list[tuple[Place, int]]] = {}
    ranked = sorted(chosen, key=lambda h: (-chosen[h].gain / max(chosen[h].change[-1], 1), h))
    for host in ranked:
        changes = changes_of({host: chosen[host]})
        goes = Counter((kind, place) for sign, place, kind in changes if sign > 0)
        for (kind, place), count in goes.items():
            there = [(place, block) for block in site.blocks[kind, place][:count]]
            leaving.setdefault(kind, []).extend(there)
    return leaving


def _slots(chosen: dict[int, Column]) -> list[Slot]:
    """Where VMs are to come: first where there is room already."""
    ranked = sorted(chosen, key=lambda h: (int(chosen[h].change[-1]), h))
    changes = changes_of({host: chosen[host] for host in ranked})
    return [Slot(kind, place) for sign, place, kind in changes if sign < 0]


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
    candidates = leaving.get(slot.kind, [])
    for place, block in sorted(candidates, key=lambda c: open_[c[0][0]] == 0):
        if place[0] != slot.place[0] and _may(draft, block, slot.place):
            _move(draft, site, block, place, slot.place)
            candidates.remove((place, block))
            open_[slot.place[0]] -= 1
            return True
    return False


def _move(draft: Draft, site: Site, block: int, source: Place, target: Place) -> None:
    seat = (target[1],) if draft.layout.nodes else None
    draft.move(block, target[0], _reason(draft, site, source, target), seat)


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
