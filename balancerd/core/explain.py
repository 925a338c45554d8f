"""Answers to an operator's questions about a decision, as values.

Why does this VM move, or stay? Why not to that host? What waits for what? Nothing here decides
anything: the same layout, rules and checker are asked as in planning.
"""

from dataclasses import dataclass

from balancerd.core.check import check
from balancerd.core.constraints import all_refusals
from balancerd.core.history import History
from balancerd.core.layout import Layout
from balancerd.core.model import Snapshot
from balancerd.core.plan import Certificate, Move, Plan, Refusal, Sleep, Wake
from balancerd.core.policy import Policy
from balancerd.core.survey import lay_out


@dataclass(frozen=True, slots=True)
class Answer:
    """One sentence, and what it rests on."""

    sentence: str
    moves: tuple[Move, ...] = ()
    refusals: tuple[Refusal, ...] = ()


def why(
    snapshot: Snapshot, policy: Policy, history: History, now: float, plan: Plan, vm: str
) -> Answer:
    """Why a plan, made of this snapshot, moves a VM or leaves it where it is."""
    if vm not in snapshot.cluster.vms:
        return Answer(f"there is no VM {vm}")
    moves = tuple(move for move in plan.moves if move.vm == vm)
    if moves:
        way = " > ".join([moves[0].source, *(move.target for move in moves)])
        return Answer(f"{vm} moves {way}: {moves[0].reason}", moves)
    layout = lay_out(snapshot, policy, history, now)
    refusals = tuple(refusal for refusal in plan.refusals if refusal.vm == vm)
    block = layout.block_of.get(vm)
    if block is None:
        return Answer(f"{vm} does not run on a host of this site", (), refusals)
    if block in layout.fixed:
        fixed = layout.fixed[block]
        return Answer(f"{vm} stays: {fixed.constraint}, {fixed.detail}", (), (fixed,))
    host = layout.hosts[layout.place[block]]
    if refusals:
        seen = refusals[0]
        sentence = f"{vm} stays on {host}: {seen.host} refused it, {seen.constraint}, {seen.detail}"
        return Answer(sentence, (), refusals)
    state = next((f"{a.verdict}, {a.reason}" for a in plan.assessments if a.host == host), "")
    return Answer(f"{vm} stays on {host}, and nothing asks for a move ({state or 'not assessed'})")


def why_not(
    snapshot: Snapshot, policy: Policy, history: History, now: float, vm: str, host: str
) -> Answer:
    """Everything that keeps a VM off a host, with numbers and what would have to change."""
    layout = lay_out(snapshot, policy, history, now)
    block, row = layout.block_of.get(vm), layout.host_row.get(host)
    if block is None or row is None:
        missing = f"VM {vm} running" if block is None else f"host {host}"
        return Answer(f"there is no {missing}")
    refusals = _all(layout, block, row)
    if not refusals:
        return Answer(f"nothing keeps {vm} off {host}")
    names = ", ".join(refusal.constraint for refusal in refusals)
    return Answer(f"{vm} may not go to {host}: {names}", (), refusals)


def _all(layout: Layout, block: int, host: int) -> tuple[Refusal, ...]:
    fixed = (layout.fixed[block],) if block in layout.fixed else ()
    return fixed + all_refusals(layout, block, host)


def verify(snapshot: Snapshot, policy: Policy, plan: Plan) -> Certificate:
    """What the independent checker says of a plan, wherever it came from."""
    return check(snapshot, policy, plan)


def as_dot(plan: Plan) -> str:
    """The plan's actions and what each waits for, in the DOT language; a wave is a rank."""
    lines = ["digraph plan {", "  rankdir=LR;", "  node [shape=box];"]
    waves: dict[int, list[int]] = {}
    for action in plan.actions:
        lines.append(f"  {action.number} [label={_quoted(_label(action))}];")
        waves.setdefault(action.wave if isinstance(action, Move) else 0, []).append(action.number)
        lines += [f"  {earlier} -> {action.number};" for earlier in action.after]
    for wave in sorted(waves):
        lines.append(f"  {{ rank=same; {' '.join(f'{number};' for number in waves[wave])} }}")
    return "\n".join([*lines, "}"])


def _label(action: Move | Sleep | Wake) -> str:
    match action:
        case Move():
            return f"{action.number}. {action.vm}: {action.source} > {action.target}"
        case Sleep():
            return f"{action.number}. sleep {action.host}"
        case Wake():
            return f"{action.number}. wake {action.host}"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
