"""From a draft's steps to moves: in the order in which they begin, each with its prediction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from balancerd.core.model import Method
from balancerd.core.moving.cost import Cost, Costs, costs_of
from balancerd.core.moving.method import weight
from balancerd.core.ordering.order import Step, dependencies
from balancerd.core.ordering.timetable import Job, Slot, timetable, waves
from balancerd.core.placing.course import scores_along
from balancerd.core.placing.layout import Layout
from balancerd.core.placing.objective import score
from balancerd.core.plan import Move
from balancerd.core.planner.draft import Draft


@dataclass(frozen=True)
class _Transport:
    """The VMs that the steps move, one by one, and what each costs on its way."""

    draft: Draft
    vms: tuple[tuple[int, str], ...]  # the step, and a VM of its block

    @cached_property
    def links(self) -> list[tuple[int, ...]]:
        """The links that each VM passes."""
        steps, topology = self.draft.steps, self.draft.paths.topology
        return [topology.path(steps[step].source, steps[step].target) for step, _ in self.vms]

    @cached_property
    def narrowest(self) -> list[str]:
        """The narrowest of those."""
        paths = self.draft.paths
        return [paths.topology.bottleneck(links, paths.free) for links in self.links]

    @cached_property
    def costs(self) -> Costs:
        """What the predictions rest on."""
        draft = self.draft
        return costs_of(draft.layout.snapshot, draft.policy, draft.history.lessons)

    def cost(self, index: int, rate: float) -> Cost:
        """What one VM's move costs at a rate."""
        return self.costs.at(self.vms[index][1], rate, self.narrowest[index])

    def jobs(self) -> list[Job]:
        """Each VM's move as the timetable sees it."""
        steps, limits = self.draft.steps, self.draft.policy.limits
        vms, heavy = self.draft.layout.snapshot.cluster.vms, weight(Method.STORAGE, limits)
        return [
            Job(
                steps[step].source,
                steps[step].target,
                self.links[index],
                1 if all(disk.shared for disk in vms[vm].disks) else heavy,
                step < self.draft.urgent,
            )
            for index, (step, vm) in enumerate(self.vms)
        ]


def moves_of(
    draft: Draft, origin: Layout, wakes: Mapping[int, int], before: float
) -> tuple[list[Move], float]:
    """A move for every VM of every step, numbered after the wakes in the order in which they
    begin; and the score once all are done, `before` the first. `wakes` are numbers of actions, by
    host."""
    if not draft.steps:
        return [], before
    start = origin.copy()
    start.receives = start.receives.copy()
    start.receives[list(draft.wakes)] = True
    waits = dependencies(start, draft.steps)
    vms = [
        (index, vm) for index, step in enumerate(draft.steps) for vm in origin.blocks[step.block]
    ]
    transport = _Transport(draft, tuple(vms))
    after = _by_vm(vms, waits)
    jobs, limits = transport.jobs(), draft.policy.limits
    slots = timetable(
        jobs,
        after,
        limits,
        lambda link: float(draft.paths.free[link]),
        lambda index, rate: transport.cost(index, rate).seconds,
    )
    order = sorted(range(len(vms)), key=lambda index: (slots[index].begin, index))
    place = {index: position for position, index in enumerate(order)}
    ordered = [sorted(place[earlier] for earlier in after[index]) for index in order]
    scores = _scores(draft, start, [vms[index][0] for index in order])
    found = zip(
        order,
        ordered,
        waves([jobs[index] for index in order], ordered, limits),
        scores,
        strict=True,
    )
    first = 1 + len(wakes)
    moves = [
        _move(
            transport,
            index,
            slots[index],
            first + position,
            (*_woken(draft.steps[vms[index][0]], wakes), *(first + other for other in earlier)),
            wave,
            value,
        )
        for position, (index, earlier, wave, value) in enumerate(found)
    ]
    return moves, scores[-1]


def _by_vm(vms: Sequence[tuple[int, str]], waits: Sequence[Sequence[int]]) -> list[list[int]]:
    """What each VM's move waits for: all of the steps that its step waits for."""
    of_step: dict[int, list[int]] = {}
    for index, (step, _) in enumerate(vms):
        of_step.setdefault(step, []).append(index)
    return [[index for earlier in waits[step] for index in of_step[earlier]] for step, _ in vms]


def _woken(step: Step, wakes: Mapping[int, int]) -> tuple[int, ...]:
    return (wakes[step.target],) if step.target in wakes else ()


def _scores(draft: Draft, start: Layout, order: Sequence[int]) -> list[float]:
    """The score after each move; a block counts as moved with the last of its VMs."""
    last = {step: position for position, step in enumerate(order)}
    awake = draft.awake()
    value = score(start, awake)
    done = sorted(last, key=last.__getitem__)
    after = scores_along(start, awake, [draft.steps[step] for step in done])
    value_of = dict(zip(done, after, strict=True))
    found: list[float] = []
    for position, step in enumerate(order):
        value = value_of[step] if last[step] == position else value
        found.append(value)
    return found


def _move(
    transport: _Transport,
    index: int,
    slot: Slot,
    number: int,
    after: tuple[int, ...],
    wave: int,
    value: float,
) -> Move:
    layout, (position, vm) = transport.draft.layout, transport.vms[index]
    step, cost = transport.draft.steps[position], transport.cost(index, slot.rate)
    return Move(
        number=number,
        vm=vm,
        source=layout.hosts[step.source],
        target=layout.hosts[step.target],
        method=cost.method,
        reason=step.reason,
        wave=wave,
        after=after,
        begin=round(slot.begin, 3),
        seconds=cost.seconds,
        bytes=cost.bytes,
        downtime=cost.downtime,
        basis=cost.basis,
        score_after=value,
        parked=step.parked,
        numa=step.numa(layout).get(vm, ()),
        set_number=1 + position if len(layout.blocks[step.block]) > 1 else 0,
    )
