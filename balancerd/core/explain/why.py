"""Why a plan moves a VM, or leaves it where it is."""

from balancerd.core.explain import facts
from balancerd.core.explain.answer import Answer, Decision, Fact
from balancerd.core.placing.layout import Layout
from balancerd.core.placing.survey import lay_out
from balancerd.core.plan import Move, Plan, Refusal, Verdict
from balancerd.core.units import format_duration, format_size


def why(decision: Decision, vm: str) -> Answer:
    """Why the decision moves a VM of its snapshot, or leaves it where it is."""
    plan = decision.plan
    layout = lay_out(decision.snapshot, decision.policy, decision.history, plan.at)
    moves = tuple(move for move in plan.moves if move.vm == vm)
    if vm not in layout.block_of:
        return _shut_off(decision, vm, moves)
    if moves:
        way = " > ".join([moves[0].source, *(move.target for move in moves)])
        sentence = f"{vm} moves {way}: {moves[0].reason}"
        return Answer(sentence, _facts_of_moving(decision, layout, moves), moves)
    sentence, refusals = _staying(decision, layout, vm)
    return Answer(sentence, _facts_of_staying(decision, layout, vm), refusals=refusals)


def _shut_off(decision: Decision, vm: str, moves: tuple[Move, ...]) -> Answer:
    """Of a VM that does not run there is little to tell."""
    if moves:
        move, told = moves[0], tuple(facts.of_rules(decision, vm))
        sentence = f"{vm} moves {move.source} > {move.target}, shut off as it is: {move.reason}"
        return Answer(sentence, (_cost(move), *told), moves)
    refusals = tuple(refusal for refusal in decision.plan.refusals if refusal.vm == vm)
    why = f": {refusals[0].constraint}, {refusals[0].detail}" if refusals else ""
    return Answer(f"{vm} does not run on a host of this site{why}", refusals=refusals)


def _staying(decision: Decision, layout: Layout, vm: str) -> tuple[str, tuple[Refusal, ...]]:
    block = layout.block_of[vm]
    if block in layout.fixed:
        fixed = layout.fixed[block]
        return f"{vm} stays: {fixed.constraint}, {fixed.detail}", (fixed,)
    host = layout.hosts[layout.place[block]]
    refusals = tuple(refusal for refusal in decision.plan.refusals if refusal.vm == vm)
    if refusals:
        seen = refusals[0]
        where = f"{seen.host} refused it" if seen.host else "it may not move"
        return f"{vm} stays on {host}: {where}, {seen.constraint}, {seen.detail}", refusals
    return f"{vm} stays on {host}{_unasked(decision.plan, host)}", ()


def _unasked(plan: Plan, host: str) -> str:
    """Why nothing is asked of a VM that nothing refused."""
    seen = next((one for one in plan.assessments if one.host == host), None)
    if seen is None or seen.verdict is not Verdict.OVERLOADED:
        state = f"{seen.verdict}, {seen.reason}" if seen else "not assessed"
        return f", and nothing asks for a move ({state})"
    instead = any(move.source == host for move in plan.moves)
    why = "others move off it instead" if instead else "no move was found that makes up for it"
    return f", which is overloaded ({seen.reason}): {why}"


def _facts_of_moving(
    decision: Decision, layout: Layout, moves: tuple[Move, ...]
) -> tuple[Fact, ...]:
    vm, target = moves[0].vm, moves[-1].target
    return (
        facts.of_vm(decision, layout, vm),
        facts.of_host(decision, moves[0].source, "source"),
        facts.of_host(decision, target, "target"),
        *(_becomes(decision, target)),
        *(_cost(move) for move in moves),
        *facts.of_moves(decision, vm),
        *facts.of_rules(decision, vm),
    )


def _becomes(decision: Decision, host: str) -> tuple[Fact, ...]:
    """What the whole plan makes of a host."""
    found = [figures for figures in decision.plan.after if figures.host == host]
    return tuple(
        Fact(
            "after",
            f"the plan leaves {host} at CPU {after.cpu:.0%}, memory {after.memory:.0%}",
            {"cpu_expected_utilisation": after.cpu, "memory_utilisation": after.memory},
        )
        for after in found
    )


def _cost(move: Move) -> Fact:
    text = (
        f"move {move.number} in wave {move.wave}, {move.method}: {format_size(move.bytes)} in "
        f"{format_duration(move.seconds)}, pause {move.downtime * 1000:.0f} ms"
    )
    numbers = {
        "predicted_bytes": float(move.bytes),
        "predicted_seconds": move.seconds,
        "predicted_downtime_ms": move.downtime * 1000,
    }
    return Fact("cost", text, numbers)


def _facts_of_staying(decision: Decision, layout: Layout, vm: str) -> tuple[Fact, ...]:
    host = layout.hosts[layout.place[layout.block_of[vm]]]
    return (
        facts.of_vm(decision, layout, vm),
        facts.of_host(decision, host),
        *facts.of_moves(decision, vm),
        *facts.of_rules(decision, vm),
        *facts.of_targets(decision, layout, vm),
        Fact("plan", decision.plan.reason),
    )
