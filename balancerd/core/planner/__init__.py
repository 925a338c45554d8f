"""From a snapshot to a plan: pure, deterministic, and never unchecked.

The stages work on one draft, each on what the earlier ones left:

    repair    broken rules and drains             always
    relieve   overloaded hosts                    always
    wake      room for the demand and the reserve always
    ease, pack, spread or defragment              only for enough gain
    repair    again, in the room that this made   always
    sleep     hosts that were seen empty          if the policy lets them
    follow    VMs that are shut off, off drains   if the policy lets them

Objective "drain" takes only the first stage's drains, and what follows them.

No stage moves a VM that an earlier one moved. Then `order` says which move waits for which, and
`check`, which shares no code with any of this, replays the result.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from types import MappingProxyType

from balancerd.core.check import check
from balancerd.core.columns import rows_where
from balancerd.core.model import Host, PowerState, Snapshot
from balancerd.core.past.history import History
from balancerd.core.placing.assess import assess_layout
from balancerd.core.placing.constraints import contradictions
from balancerd.core.placing.layout import Bools, Layout, is_sane
from balancerd.core.placing.objective import score
from balancerd.core.placing.survey import lay_out
from balancerd.core.plan import Plan, Refusal, Verdict
from balancerd.core.planner.cold import follow
from balancerd.core.planner.defragment import defragment
from balancerd.core.planner.draft import Draft
from balancerd.core.planner.ease import ease
from balancerd.core.planner.pack import pack
from balancerd.core.planner.power import sleep, wake
from balancerd.core.planner.relieve import relieve
from balancerd.core.planner.repair import repair
from balancerd.core.planner.report import condemned, empty_plan, finished
from balancerd.core.planner.resume import before_latest, resume
from balancerd.core.planner.spread import spread
from balancerd.core.planner.worth import worth
from balancerd.core.policies.choices import Objective
from balancerd.core.policies.policy import Policy
from balancerd.core.same import Same
from balancerd.core.sensing.snapshot import freeze_reason
from balancerd.core.units import counted, format_size

Stage = Callable[[Draft], None]
# What each objective has a draft do once all that is urgent is decided.
STAGES: Mapping[Objective, Stage] = MappingProxyType(
    {
        Objective.SPREAD: spread,
        Objective.PACK: pack,
        Objective.QUIET: ease,
        Objective.DEFRAGMENT: defragment,
    }
)


def plan(
    snapshot: Snapshot,
    policy: Policy,
    history: History,
    now: float,
    stages: Mapping[Objective, Stage] = STAGES,
) -> Plan:
    """The plan for a snapshot under `policy.at(now)`; empty, and saying why, where nothing is due.

    The plan carries the checker's certificate. Should the checker ever find fault with a plan, an
    empty one is returned in its place, with the fault as its reason.
    """
    draft = _begun(snapshot, policy, history, now)
    frozen = _frozen(draft)
    if frozen:
        return empty_plan(draft, frozen)
    _decide(draft, stages)
    follow(draft)
    made = finished(draft)
    certificate = check(snapshot, policy, made)
    if certificate.violations and draft.sleeps:
        # Whether a host would be missed is judged by other placements there: moves come first.
        draft.sleeps.clear()
        made = finished(draft)
        certificate = check(snapshot, policy, made)
    if certificate.violations:
        return condemned(draft, certificate)
    return replace(made, certificate=certificate)


def _begun(snapshot: Snapshot, policy: Policy, history: History, now: float) -> Draft:
    layout = lay_out(snapshot, policy, history, now)
    draft = Draft(layout, assess_layout(layout, now), history, now, layout.copy())
    _leave_out(draft)
    return draft


def _decide(draft: Draft, stages: Mapping[Objective, Stage]) -> None:
    """All stages but the last."""
    for refusal in contradictions(draft.layout.snapshot.cluster, draft.policy):
        draft.note(refusal)
        draft.contradictory.add(refusal.vm)
    repair(draft)
    if draft.policy.objective is Objective.DRAIN:
        return
    relieve(draft)
    draft.urgent = len(draft.steps)
    wake(draft)
    _improve(draft, stages)
    if draft.steps or draft.wakes:
        repair(draft, again=True)
    sleep(draft)


def _leave_out(draft: Draft) -> None:
    """Say of hosts whose capacity cannot be believed that they take no part."""
    for name, host in _insane(Same(draft.layout.snapshot.cluster.hosts)):
        size = f"{host.cpu:g} cores and {format_size(host.memory)} of memory"
        draft.note(Refusal("", name, "capacity", size, f"correct what {name} is said to have"))


@lru_cache(maxsize=1)
def _insane(hosts: Same[Mapping[str, Host]]) -> tuple[tuple[str, Host], ...]:
    """The hosts whose capacity cannot be believed, in order of their names."""
    return tuple((name, host) for name, host in sorted(hosts.value.items()) if not is_sane(host))


def _frozen(draft: Draft) -> str:
    """Why nothing at all may be planned; "" if something may."""
    snapshot, detection = draft.layout.snapshot, draft.policy.detection
    if not draft.layout.hosts:
        return "the site has no hosts"
    reason = freeze_reason(snapshot, detection)
    if reason:
        return f"{reason}: nothing is planned"
    rows = rows_where(draft.judged(Verdict.UNKNOWN)).tolist()
    names = [draft.layout.hosts[row] for row in rows]
    unknown = [name for name in names if is_sane(snapshot.cluster.hosts[name])]
    watched = int((~draft.judged(Verdict.ASLEEP)).sum())
    if len(unknown) <= detection.unknown_hosts * watched:
        return ""
    if all(snapshot.cluster.hosts[name].power is PowerState.ON for name in unknown):
        return f"waiting for a second reading of {counted(len(unknown), 'host')}: two make a load"
    return f"{len(unknown)} of {watched} hosts are not known: nothing is planned"


def _improve(draft: Draft, stages: Mapping[Objective, Stage]) -> None:
    """Let the objective propose moves, and drop them if they are not worth what they cost.

    Where a part of an earlier plan was just done, its rest comes before what else would be moved.
    """
    stage = stages.get(draft.policy.objective)
    if stage is None:
        return
    begun, layout, awake = list(draft.steps), draft.layout.copy(), draft.awake()
    kept = len(begun)
    stage(draft)
    if len(draft.steps) == kept:
        return
    moves = sum(len(layout.blocks[step.block]) for step in draft.steps[kept:])
    reason = _too_little(draft, layout, awake) or _too_dear(draft, layout, kept)
    if reason:
        draft.declined = f"{counted(moves, 'move')} would {reason}"
        draft.layout, draft.steps = layout, begun
    elif earlier := before_latest(draft):
        former = _begun(earlier[0], draft.policy, earlier[1], draft.now)
        _decide(former, stages)
        resume(draft, begun, former)


def _too_little(draft: Draft, layout: Layout, awake: Bools) -> str:
    """What the gain in score since `layout`, with those hosts on, is short of; "" if it is enough.

    Packing and easing weigh every move by the policy's `[costs]` themselves: on a large site what
    one plan may move is always a small share.
    """
    if draft.policy.objective in (Objective.PACK, Objective.QUIET):
        return ""
    before, gain = score(layout, awake), draft.policy.limits.gain
    after = score(draft.layout, draft.awake())
    if before - after >= gain * before:
        return ""
    return (
        f"better the score from {before:.4g} to {after:.4g}, "
        f"less than the {gain:.0%} that limits.gain asks for"
    )


def _too_dear(draft: Draft, layout: Layout, kept: int) -> str:
    """Why the steps decided since `layout` cost more than they spare; "" if they do not.

    Packing weighs its moves against hosts itself, by the policy's `[costs]`.
    """
    if draft.policy.objective is not Objective.SPREAD:
        return ""
    times = draft.policy.limits.benefit
    seen = worth(layout, draft.layout, draft.steps[kept:], draft.history)
    if seen.suffices(times):
        draft.worth = str(seen)
        return ""
    return f"{seen}, less than the {times:g} times that limits.benefit asks for"
