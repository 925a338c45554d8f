"""Everything that keeps a VM off a host, and the smallest change that would let it go there.

The smallest change is found by trying: VMs are taken off the host, as few as can be, until what
their leaving can help is helped. What still stands then needs what its own remedy says.
"""

from collections.abc import Iterable, Iterator

from balancerd.core.explain import facts
from balancerd.core.explain.answer import Answer, Decision
from balancerd.core.placing.constraints import all_refusals
from balancerd.core.placing.layout import Layout
from balancerd.core.placing.survey import lay_out
from balancerd.core.plan import Refusal
from balancerd.core.units import format_size


def why_not(decision: Decision, vm: str, host: str) -> Answer:
    """Everything that keeps a VM off a host of the snapshot, and what would have to change."""
    layout = lay_out(decision.snapshot, decision.policy, decision.history, decision.plan.at)
    if vm not in layout.block_of:
        return Answer(f"{vm} does not run on a host of this site")
    block, row = layout.block_of[vm], layout.host_row[host]
    if row == layout.place[block]:
        return Answer(f"{vm} is on {host} already", (facts.of_host(decision, host),))
    fixed = (layout.fixed[block],) if block in layout.fixed else ()
    refusals = fixed + all_refusals(layout, block, row)
    seen = (facts.of_vm(decision, layout, vm), facts.of_host(decision, host, "target"))
    if not refusals:
        gain = facts.of_gain(decision, layout, block, row)
        return Answer(f"nothing keeps {vm} off {host}", (*seen, gain))
    names = ", ".join(refusal.constraint for refusal in refusals)
    change = tuple(_needed(layout, block, row, fixed))
    return Answer(f"{vm} may not go to {host}: {names}", seen, (), refusals, change)


def _needed(layout: Layout, block: int, host: int, fixed: Iterable[Refusal]) -> Iterator[str]:
    """What has to be done, all of it, before the block may go to the host."""
    leaving, standing = make_room(layout, block, host)
    yield from (_lifted(refusal) for refusal in fixed)
    emptied = all_refusals(_without(layout, host, _movable(layout, host)), block, host)
    details = {refusal.constraint: refusal.detail for refusal in emptied}
    for refusal in standing:
        least = details.get(refusal.constraint, refusal.detail)
        if least == refusal.detail:
            yield _lifted(refusal)
        else:
            name, what = layout.hosts[host], refusal.constraint
            yield f"{name} is too small, even without all VMs that can leave it: {what}, {least}"
    for other in leaving:
        names = ", ".join(layout.blocks[other])
        yield f"move {names} ({format_size(layout.memory[other])}) off {layout.hosts[host]}"


def _lifted(refusal: Refusal) -> str:
    return refusal.remedy or f"lift {refusal.constraint}: {refusal.detail}"


def make_room(layout: Layout, block: int, host: int) -> tuple[list[int], tuple[Refusal, ...]]:
    """Blocks that have to leave the host for the block, none without need, and what still stands.

    One block where one is enough, the lightest such; else the largest, with lighter ones in
    their place as far as those are enough, too.
    """
    movable = _movable(layout, host)
    goal = _refused_without(layout, block, host, movable)
    if goal == _refused_without(layout, block, host, []):
        return [], all_refusals(layout, block, host)
    leaving = next(
        ([one] for one in movable if _refused_without(layout, block, host, [one]) == goal),
        None,
    )
    if leaving is None:
        leaving = _fewest(layout, block, host, movable, goal)
    return leaving, all_refusals(_without(layout, host, leaving), block, host)


def _movable(layout: Layout, host: int) -> list[int]:
    """The blocks that can leave a host, the lightest first."""
    movable = [block for block in layout.blocks_on(host) if block not in layout.fixed]
    return sorted(movable, key=lambda block: (layout.memory[block], layout.blocks[block]))


def _fewest(
    layout: Layout, block: int, host: int, movable: list[int], goal: frozenset[str]
) -> list[int]:
    """The largest first, until they are enough; then less and less, while that is enough, too."""
    weight = layout.memory / max(layout.memory_capacity[host], 1.0)
    weight = weight + layout.cpu / max(layout.cpu_capacity[host], 1e-9)
    leaving: list[int] = []
    for other in sorted(movable, key=lambda b: (-weight[b], b)):
        leaving.append(other)
        if _refused_without(layout, block, host, leaving) == goal:
            break

    def is_enough(fewer: list[int]) -> bool:
        return _refused_without(layout, block, host, fewer) == goal

    # One in another's place may make a third superfluous: light in memory, it may be heavy in CPU.
    while (less := next(filter(is_enough, _lesser(leaving, movable)), None)) is not None:
        leaving = less
    return leaving


def _lesser(leaving: list[int], movable: list[int]) -> Iterator[list[int]]:
    """The blocks without one of them, or with a lighter one in its place."""
    for other in reversed(leaving):
        rest = [b for b in leaving if b != other]
        yield rest
        yield from ([*rest, b] for b in movable[: movable.index(other)] if b not in rest)


def _refused_without(layout: Layout, block: int, host: int, leaving: list[int]) -> frozenset[str]:
    """The constraints that refuse the block once some others have left the host."""
    found = all_refusals(_without(layout, host, leaving), block, host)
    return frozenset(refusal.constraint for refusal in found)


def _without(layout: Layout, host: int, leaving: list[int]) -> Layout:
    trial = layout.copy()
    for other in leaving:
        trial.charge(other, host, -1)
    return trial
