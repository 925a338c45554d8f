"""Stage one: broken rules are mended, and hosts that an operator drains are emptied.

All blocks concerned are lifted off the layout first and put back where they fit, largest first, so
that blocks which are in each other's way can swap; `order.schedule` finds the steps. What finds no
way like that is looked at once more by itself.
"""

from collections.abc import Iterator

import numpy as np

from balancerd.core.ordering.order import Want, schedule
from balancerd.core.placing.layout import Bools, Floats, Group, Layout
from balancerd.core.planner.draft import Draft
from balancerd.core.planner.prices import move_prices
from balancerd.core.planner.subsets import CHOICE, sets_of
from balancerd.core.policies.choices import Objective


def repair(draft: Draft, *, again: bool = False) -> None:
    """Decide the moves that rules and drains ask for; `again` says nothing new of what is left."""
    told, counts = list(draft.told), draft.counts.copy()
    reasons = _wanted(draft)
    if reasons:
        _mend(draft, reasons)
    if again:
        draft.told, draft.counts = told, counts


def _mend(draft: Draft, reasons: dict[int, str]) -> None:
    """All blocks together as far as the plan may move them; what finds no way so, one by one."""
    wants = _targets(draft, _within_room(draft, reasons))
    steps, refused = schedule(draft.layout, wants)
    draft.steps += steps
    for refusal in refused:
        draft.note(refusal)
    if len(steps) < len(reasons):
        _one_by_one(draft, reasons)


def _one_by_one(draft: Draft, reasons: dict[int, str]) -> None:
    """What found no way together with the others goes where it may now, if it is still wrong."""
    layout = draft.layout
    for block in sorted(reasons, key=lambda b: (-layout.memory[b], b)):
        if block in layout.moved or len(layout.blocks[block]) > draft.room():
            continue
        target = draft.best_target(block) if _is_wrong(layout, block) else None
        if target is not None:
            draft.move(block, target, reasons[block])


def _is_wrong(layout: Layout, block: int) -> bool:
    """Whether any other host that takes the block is better than its own."""
    here = int(layout.place[block])
    crowded = any(
        layout.groups[index].kind == "apart"
        and layout.present[index][int(layout.domains[layout.groups[index].scope][here])]
        > layout.groups[index].at_most
        for index, _ in layout.groups_of.get(block, ())
    )
    allowed = layout.allowed[layout.signature[block], here]
    return crowded or not allowed or layout.hosts[here] in layout.snapshot.draining


def _wanted(draft: Draft) -> dict[int, str]:
    """Movable blocks that should not be where they are, and why."""
    layout = draft.layout
    reasons = {} if draft.policy.objective is Objective.DRAIN else _broken(layout)
    for host in sorted(layout.snapshot.draining & layout.host_row.keys()):
        leaving = layout.blocks_on(layout.host_row[host])
        reasons |= dict.fromkeys(leaving, f"{host} is draining")
    return {block: reasons[block] for block in sorted(reasons) if draft.is_movable(block)}


def _within_room(draft: Draft, reasons: dict[int, str]) -> dict[int, str]:
    """As many of the blocks, in order, as the plan may still move."""
    chosen, room = {}, draft.room()
    for block, reason in reasons.items():
        if len(draft.layout.blocks[block]) <= room:
            chosen[block] = reason
            room -= len(draft.layout.blocks[block])
    return chosen


def _broken(layout: Layout) -> dict[int, str]:
    """Blocks that a rule does not want where they are."""
    misplaced = {
        block: f"a rule keeps it off {layout.hosts[layout.place[block]]}"
        for block in layout.misplaced()
    }
    return _crowded(layout) | _scattered(layout) | misplaced


def _crowded(layout: Layout) -> dict[int, str]:
    """All but the dearest members wherever too many of an "apart" group share a domain."""
    crowds = list(_crowds(layout))
    if not crowds:
        return {}
    reasons, prices = {}, move_prices(layout)
    for group, blocks in crowds:
        price = {block: _leaving_price(layout, block, prices) for block in blocks}
        ranked = sorted(blocks, key=lambda b: (b not in layout.fixed, -price[b], b))
        for block in ranked[group.at_most :]:
            reasons[block] = f"{group.name}: shares its {group.scope} with another of the group"
    return reasons


def _crowds(layout: Layout) -> Iterator[tuple[Group, list[int]]]:
    """The blocks of an "apart" group in each domain that has too many of them."""
    members = _members(layout)
    for index, group in enumerate(layout.groups):
        if group.kind == "apart" and len(members[index]) > group.at_most:
            for blocks in _by_domain(layout, index, members[index]).values():
                if len(blocks) > group.at_most:
                    yield group, blocks


def _leaving_price(layout: Layout, block: int, prices: Floats) -> float:
    """What it costs that a block leaves: its bytes, or with its move all that its host then needs.

    Of two that may not be together it need not be the smaller one whose host is better without it.
    `prices`: what it costs to move each block.
    """
    costs, host = layout.policy.costs, int(layout.place[block])
    if layout.policy.objective is not Objective.QUIET or not costs.crowding:
        return float(layout.memory[block])
    others = np.array(layout.blocks_on(host))
    others = others[(others != block) & (layout.cpu[others] > 0)]
    cheapest = np.argsort(prices[others] / layout.cpu[others], kind="stable")[:CHOICE]
    others = others[cheapest]
    sets = sets_of(len(others))
    capacity = float(layout.cpu_capacity[host])
    over = float(layout.expected_cpu()[host] - costs.crowded) * capacity - float(layout.cpu[block])
    left = np.maximum(0.0, over - sets @ layout.cpu[others])
    return float(prices[block] + (sets @ prices[others] + costs.crowding * left).min())


def _scattered(layout: Layout) -> dict[int, str]:
    """The members of a "together" group outside the domain that has most of its memory."""
    reasons, members = {}, _members(layout)
    for index, group in enumerate(layout.groups):
        if group.kind != "together":
            continue
        domains = _by_domain(layout, index, members[index])
        ranked = sorted(domains, key=lambda d: (-sum(layout.memory[b] for b in domains[d]), d))
        for domain in ranked[1:]:
            for block in domains[domain]:
                reasons[block] = f"{group.name}: others of the group are elsewhere"
    return reasons


def _members(layout: Layout) -> list[list[int]]:
    """The blocks of every group, in order."""
    members: list[list[int]] = [[] for _ in layout.groups]
    for block in sorted(layout.groups_of):
        for group, _ in layout.groups_of[block]:
            members[group].append(block)
    return members


def _by_domain(layout: Layout, group: int, members: list[int]) -> dict[int, list[int]]:
    """The members of a group by the domain they are in."""
    domain_of = layout.domains[layout.groups[group].scope]
    domains: dict[int, list[int]] = {}
    for block in members:
        domains.setdefault(int(domain_of[layout.place[block]]), []).append(block)
    return domains


def _targets(draft: Draft, reasons: dict[int, str]) -> list[Want]:
    """Where each of the lifted blocks goes; what finds no place stays, and says why."""
    lifted = draft.layout.copy()
    for block in reasons:
        lifted.charge(block, int(lifted.place[block]), -1)
    trial = Draft(lifted, draft.assessments, draft.history, draft.now, draft.origin)
    wants, scattered = [], _scattered(draft.layout)
    for block in sorted(reasons, key=lambda b: (-lifted.memory[b], -lifted.cpu[b], b)):
        anywhere = reasons[block] != scattered.get(block)
        target = _place(draft, trial, block, reasons[block], anywhere=anywhere)
        if target is None:
            lifted.charge(block, int(lifted.place[block]))
            draft.note_nowhere(block)
            continue
        lifted.charge(block, target)
        lifted.place[block] = target
        wants.append(Want(block, target, reasons[block]))
    return wants


def _place(draft: Draft, trial: Draft, block: int, reason: str, *, anywhere: bool) -> int | None:
    """The best host for a lifted block, preferring the rest of its group; waking one if needed.

    A block that only has to join the others goes nowhere else: it would still be apart from them.
    """
    gathering = _gathering(trial.layout, block)
    target = trial.best_target(block, gathering) if gathering is not None else None
    if target is None and gathering is not None and not anywhere:
        return None
    if target is None:
        target = trial.best_target(block)
    if target is None and draft.wake_one(reason, block, urgent=True):
        trial.layout.receives[:] = draft.layout.receives
        target = trial.best_target(block)
    return target


def _gathering(layout: Layout, block: int) -> Bools | None:
    """Hosts in the domain where most of the block's "together" group is; None without a group."""
    for index, _ in layout.groups_of.get(block, ()):
        group, present = layout.groups[index], layout.present[index]
        if group.kind == "together" and any(present.values()):
            fullest = max(sorted(present), key=lambda domain: present[domain])
            return np.asarray(layout.domains[group.scope] == fullest)
    return None
