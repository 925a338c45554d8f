"""From a finished draft to a plan: numbered actions, predictions, figures, and one sentence."""

from collections import Counter
from dataclasses import replace

from balancerd.core.cost import migration_cost
from balancerd.core.layout import Layout
from balancerd.core.objective import Score, score
from balancerd.core.order import Step, dependencies, waves
from balancerd.core.plan import Action, Certificate, HostFigures, Move, Plan, Sleep, Verdict, Wake
from balancerd.core.planner.draft import Draft
from balancerd.core.units import counted


def empty_plan(draft: Draft, origin: Layout, reason: str) -> Plan:
    """No actions, and why."""
    value = score(origin, draft.awake())
    return Plan(
        at=draft.now,
        policy=draft.policy.name,
        objective=str(draft.policy.objective),
        actions=(),
        reason=reason,
        score_before=value,
        score_after=value,
        assessments=draft.assessments,
        before=_figures(origin, draft, woken=False),
        after=_figures(origin, draft, woken=False),
        refusals=tuple(draft.told),
        refusal_counts=dict(sorted(draft.counts.items())),
        certificate=Certificate(0, (), {}),
    )


def condemned(draft: Draft, origin: Layout, certificate: Certificate) -> Plan:
    """The empty plan in place of one that the checker found fault with."""
    fault = f"the checker refused the plan: {certificate.violations[0]}"
    return replace(empty_plan(draft, origin, fault), certificate=certificate)


def finished(draft: Draft, origin: Layout) -> Plan:
    """The draft as a plan not yet checked; `origin` is the layout before its first move."""
    before = score(origin, draft.awake())
    actions, after = _actions(draft, origin)
    plan = empty_plan(draft, origin, _sentence(draft, before, after))
    return replace(
        plan,
        actions=actions,
        score_before=before,
        score_after=after,
        after=_figures(draft.layout, draft, woken=True),
        certificate=None,
    )


def _actions(draft: Draft, origin: Layout) -> tuple[tuple[Action, ...], float]:
    """Wakes, then moves, then sleeps, numbered from 1; and the score when all is done."""
    names = origin.hosts
    wakes = {
        host: Wake(number, names[host], draft.wakes[host])
        for number, host in enumerate(sorted(draft.wakes), start=1)
    }
    moves, value = _moves(draft, origin, {host: wake.number for host, wake in wakes.items()})
    first = 1 + len(wakes) + len(moves)
    sleeps = [
        Sleep(number, names[host], draft.sleeps[host])
        for number, host in enumerate(sorted(draft.sleeps), start=first)
    ]
    return (*wakes.values(), *moves, *sleeps), value


def _moves(draft: Draft, origin: Layout, wakes: dict[int, int]) -> tuple[list[Move], float]:
    """A move for every VM of every step; those of one step do not wait for each other."""
    start = origin.copy()
    start.receives = start.receives.copy()
    start.receives[list(draft.wakes)] = True
    waits = dependencies(start, draft.steps)
    scored = Score(start, draft.awake())
    numbers: list[list[int]] = []
    moves: list[Move] = []
    after: list[tuple[int, ...]] = []
    for step, earlier in zip(draft.steps, waits, strict=True):
        woken = [wakes[step.target]] if step.target in wakes else []
        needed = tuple(woken + [number for index in earlier for number in numbers[index]])
        scored.move(step.block, step.target, step.seat)
        value = scored.value()
        numbers.append([])
        for vm in origin.blocks[step.block]:
            number = 1 + len(wakes) + len(moves)
            numbers[-1].append(number)
            after.append(needed)
            moves.append(_move(draft, step, vm, number, needed, value))
    return _in_waves(draft, moves, after, len(wakes)), scored.value()


def _move(
    draft: Draft, step: Step, vm: str, number: int, after: tuple[int, ...], value: float
) -> Move:
    layout = draft.layout
    rate, lessons = float(draft.policy.limits.bandwidth), draft.history.lessons
    cost = migration_cost(vm, layout.snapshot, draft.policy, rate, "", lessons)
    return Move(
        number=number,
        vm=vm,
        source=layout.hosts[step.source],
        target=layout.hosts[step.target],
        method=cost.method,
        reason=step.reason,
        after=after,
        seconds=cost.seconds,
        bytes=cost.bytes,
        downtime=cost.downtime,
        basis=cost.basis,
        score_after=value,
        parked=step.parked,
        numa=step.numa(layout).get(vm, ()),
    )


def _in_waves(
    draft: Draft, moves: list[Move], after: list[tuple[int, ...]], woken: int
) -> list[Move]:
    """The moves with their wave; wakes, which come first, are no wave."""
    row = draft.layout.host_row
    ways = [(row[move.source], row[move.target]) for move in moves]
    earlier = [[number - 1 - woken for number in numbers if number > woken] for numbers in after]
    found = waves(ways, earlier, draft.policy.limits)
    return [replace(move, wave=wave) for move, wave in zip(moves, found, strict=True)]


def _figures(layout: Layout, draft: Draft, *, woken: bool) -> tuple[HostFigures, ...]:
    cpu, memory = layout.expected_cpu(), layout.expected_memory()
    asleep = (Verdict.ASLEEP, Verdict.UNKNOWN)
    on = [assessment.verdict not in asleep for assessment in draft.assessments]
    if woken:
        on = [
            (is_on or row in draft.wakes) and row not in draft.sleeps
            for row, is_on in enumerate(on)
        ]
    return tuple(
        HostFigures(name, float(cpu[r]), float(memory[r]), int(layout.used_count[r]), on[r])
        for r, name in enumerate(layout.hosts)
    )


def _sentence(draft: Draft, before: float, after: float) -> str:
    counts = Counter(assessment.verdict for assessment in draft.assessments)
    moves = sum(len(draft.layout.blocks[step.block]) for step in draft.steps)
    done = [
        counted(count, noun)
        for count, noun in (
            (moves, "move"),
            (len(draft.wakes), "host to wake"),
            (len(draft.sleeps), "host to sleep"),
        )
        if count
    ]
    refused = f", refused {sum(draft.counts.values())}" if draft.counts else ""
    if done:
        worth = f", {draft.worth}" if draft.worth else ""
        return f"{', '.join(done)}: score {before:.4g} -> {after:.4g}{worth}{refused}"
    if draft.declined:
        return f"nothing to do: {draft.declined}"
    busiest = max((a.cpu for a in draft.assessments), default=0.0)
    return (
        f"nothing to do: {counted(counts[Verdict.OVERLOADED], 'host overloaded')}, "
        f"busiest CPU {busiest:.0%}, score {before:.4g}{refused}"
    )
