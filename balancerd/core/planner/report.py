"""From a finished draft to a plan: numbered actions, predictions, figures, and one sentence."""

from collections import Counter
from dataclasses import replace

from balancerd.core.placing.layout import Layout
from balancerd.core.placing.objective import score
from balancerd.core.plan import Action, Certificate, HostFigures, Plan, Sleep, Verdict, Wake
from balancerd.core.planner.cold import cold_moves
from balancerd.core.planner.draft import Draft
from balancerd.core.planner.moves import moves_of
from balancerd.core.units import counted


def empty_plan(draft: Draft, reason: str) -> Plan:
    """No actions, and why."""
    value, figures = score(draft.origin, draft.awake()), _figures(draft.origin, draft, woken=False)
    return Plan(
        at=draft.now,
        policy=draft.policy.name,
        objective=str(draft.policy.objective),
        actions=(),
        reason=reason,
        score_before=value,
        score_after=value,
        assessments=draft.assessments,
        before=figures,
        after=figures,
        refusals=tuple(draft.told),
        refusal_counts=dict(sorted(draft.counts.items())),
        certificate=Certificate(0, (), {}),
    )


def condemned(draft: Draft, certificate: Certificate) -> Plan:
    """The empty plan in place of one that the checker found fault with."""
    fault = f"the checker refused the plan: {certificate.violations[0]}"
    return replace(empty_plan(draft, fault), certificate=certificate)


def finished(draft: Draft) -> Plan:
    """The draft as a plan not yet checked."""
    before = score(draft.origin, draft.awake())
    actions, after = _actions(draft)
    plan = empty_plan(draft, _sentence(draft, before, after))
    return replace(
        plan,
        actions=actions,
        score_before=before,
        score_after=after,
        after=_figures(draft.layout, draft, woken=True),
        certificate=None,
    )


def _actions(draft: Draft) -> tuple[tuple[Action, ...], float]:
    """Wakes, then moves, then sleeps, numbered from 1; and the score when all is done."""
    names = draft.origin.hosts
    wakes = {
        host: Wake(number, names[host], draft.wakes[host])
        for number, host in enumerate(sorted(draft.wakes), start=1)
    }
    moves, value = moves_of(
        draft, draft.origin, {host: wake.number for host, wake in wakes.items()}
    )
    moves += cold_moves(draft, moves, 1 + len(wakes) + len(moves), value)
    first = 1 + len(wakes) + len(moves)
    sleeps = [
        Sleep(number, names[host], draft.sleeps[host])
        for number, host in enumerate(sorted(draft.sleeps), start=first)
    ]
    return (*wakes.values(), *moves, *sleeps), value


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
    return (
        f"nothing to do: {counted(counts[Verdict.OVERLOADED], 'host overloaded')}, "
        f"busiest CPU {busiest:.0%}, score {before:.4g}{refused}"
    )
