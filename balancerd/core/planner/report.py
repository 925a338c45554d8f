"""From a finished draft to a plan: numbered actions, predictions, figures, and one sentence."""

from dataclasses import replace
from functools import lru_cache

from balancerd.core.columns import rows_where
from balancerd.core.placing.layout import Bools, Layout
from balancerd.core.placing.objective import score
from balancerd.core.plan import Action, Certificate, HostFigures, Plan, Sleep, Verdict, Wake
from balancerd.core.planner.cold import cold_moves
from balancerd.core.planner.draft import Draft
from balancerd.core.planner.moves import moves_of
from balancerd.core.units import counted


def empty_plan(draft: Draft, reason: str) -> Plan:
    """No actions, and why."""
    value = score(draft.origin, draft.awake())
    plan = _plan(draft, (), reason, value, value)
    return replace(plan, after=plan.before, certificate=Certificate(0, (), {}))


def condemned(draft: Draft, certificate: Certificate) -> Plan:
    """The empty plan in place of one that the checker found fault with."""
    fault = f"the checker refused the plan: {certificate.violations[0]}"
    return replace(empty_plan(draft, fault), certificate=certificate)


def finished(draft: Draft) -> Plan:
    """The draft as a plan not yet checked."""
    before = score(draft.origin, draft.awake())
    actions, after = _actions(draft, before)
    plan = _plan(draft, actions, _sentence(draft, before, after), before, after)
    if not actions:
        return replace(plan, after=plan.before)
    on = draft.awake()
    on[list(draft.sleeps)] = False
    return replace(plan, after=_figures(draft.layout, on))


def _plan(
    draft: Draft, actions: tuple[Action, ...], reason: str, before: float, after: float
) -> Plan:
    """The plan without its figures of afterwards; scores before and after."""
    return Plan(
        at=draft.now,
        policy=draft.policy.name,
        objective=str(draft.policy.objective),
        actions=actions,
        reason=reason,
        score_before=before,
        score_after=after,
        assessments=draft.assessments,
        before=_figures(draft.origin, ~draft.judged(Verdict.ASLEEP, Verdict.UNKNOWN)),
        refusals=tuple(draft.told),
        refusal_counts=dict(sorted(draft.counts.items())),
    )


def _actions(draft: Draft, before: float) -> tuple[tuple[Action, ...], float]:
    """Wakes, then moves, then sleeps, numbered from 1; and the score when all is done, from what it
    is before."""
    names = draft.origin.hosts
    wakes = {
        host: Wake(number, names[host], draft.wakes[host])
        for number, host in enumerate(sorted(draft.wakes), start=1)
    }
    moves, value = moves_of(
        draft, draft.origin, {host: wake.number for host, wake in wakes.items()}, before
    )
    moves += cold_moves(draft, moves, 1 + len(wakes) + len(moves), value)
    first = 1 + len(wakes) + len(moves)
    sleeps = [
        Sleep(number, names[host], draft.sleeps[host])
        for number, host in enumerate(sorted(draft.sleeps), start=first)
    ]
    return (*wakes.values(), *moves, *sleeps), value


def _figures(layout: Layout, on: Bools) -> tuple[HostFigures, ...]:
    cpu, memory, count = layout.expected_cpu(), layout.expected_memory(), layout.used_count
    figures = list(_idle(layout.hosts))
    rows = rows_where((cpu != 0) | (memory != 0) | (count != 0) | on)
    columns = (column[rows].tolist() for column in (cpu, memory, count, on))
    for row, *told in zip(rows.tolist(), *columns, strict=True):
        figures[row] = HostFigures(layout.hosts[row], *told)
    return tuple(figures)


@lru_cache(maxsize=2)
def _idle(hosts: tuple[str, ...]) -> tuple[HostFigures, ...]:
    """What is told of hosts that are off: most of a site that is packed."""
    return tuple(HostFigures(host, 0.0, 0.0, 0, on=False) for host in hosts)


def _sentence(draft: Draft, before: float, after: float) -> str:
    overloaded = int(draft.judged(Verdict.OVERLOADED).sum())
    moves = sum(len(draft.layout.blocks[step.block]) for step in draft.steps) + len(draft.cold)
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
    verdict = "nothing would help" if overloaded else "nothing to do"
    return (
        f"{verdict}: {counted(overloaded, 'host overloaded')}, "
        f"busiest CPU {busiest:.0%}, score {before:.4g}{refused}"
    )
