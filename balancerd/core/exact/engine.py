"""Planning with a solver in the place of the objective's own stage, or beside it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

import numpy as np

from balancerd.core.exact.assignment import assignment
from balancerd.core.exact.drawing import Question
from balancerd.core.exact.program import Solver
from balancerd.core.model import Snapshot
from balancerd.core.ordering.order import Want, schedule
from balancerd.core.past.history import History
from balancerd.core.placing.layout import Ints
from balancerd.core.plan import Plan
from balancerd.core.planner import STAGES, Stage
from balancerd.core.planner import plan as make_plan
from balancerd.core.planner.draft import Draft
from balancerd.core.planner.ease import easing
from balancerd.core.planner.pack import closable, packing
from balancerd.core.planner.prices import host_prices
from balancerd.core.policies.choices import Engine, Objective
from balancerd.core.policies.policy import Policy

COLUMNS = 400_000  # of a program that is worth trying
GAIN = 1e-6  # of a plan that is worth taking


def planner_with(solve: Solver) -> Callable[[Snapshot, Policy, History, float], Plan]:
    """A planner that decides as the policy's `engine` says, with this solver for the exact one."""

    def planner(snapshot: Snapshot, policy: Policy, history: History, now: float) -> Plan:
        if policy.engine is Engine.BUILTIN:
            return make_plan(snapshot, policy, history, now)
        attempt = Attempt(solve, policy)
        stages = {objective: partial(attempt.stage, stage) for objective, stage in STAGES.items()}
        made = make_plan(snapshot, policy, history, now, stages)
        return replace(made, reason=f"{made.reason}; exact: {attempt.told}")

    return planner


@dataclass(slots=True)
class Attempt:
    """One planning with a solver, and what came of it in words."""

    solve: Solver
    policy: Policy
    told: str = "was not asked, since nothing may be planned"

    def stage(self, builtin: Stage, draft: Draft) -> None:
        """The objective's stage: the built-in one, and the solver's answer where it is better."""
        kept = len(draft.steps)
        builtin(draft)
        begun = draft.steps[:kept]  # packing may have turned relief elsewhere
        before = replace(draft, layout=draft.layout_after(begun), steps=begun, urgent=0)
        asked = QUESTIONS.get(self.policy.objective)
        question = asked(before) if asked else None
        if question is None:
            self.told = f'has no say in objective "{self.policy.objective}"'
            return
        moved = np.flatnonzero(draft.layout.place != question.start).tolist()
        seats = {block: draft.layout.seat(block) for block in moved}
        question = replace(question, start=draft.layout.place.copy(), seats=seats)
        place = self._answer(question)
        if place is not None and self.policy.engine is Engine.EXACT:
            self._take(question, place, draft, before)

    def _answer(self, question: Question) -> Ints | None:
        """Where the solver puts each block; None where that costs no less than what we have."""
        asked, rules = assignment(question), self.policy.exact
        if not 0 < len(asked.block) <= COLUMNS:
            self.told = f"left out, with {len(asked.block)} ways for VMs to be"
            return None
        found = self.solve(asked.program, rules.seconds, rules.memory)
        if found.x is None:
            self.told = f"{found.told}; the built-in plan stands"
            return None
        place = asked.places(question.search.home, found.x)
        mine, theirs = question.cost(question.start), question.cost(place)
        self.told = (
            f"{found.told}, costs {theirs:.6g} where the built-in plan costs {mine:.6g} "
            f"and nothing less than {found.bound + asked.constant:.6g}"
        )
        return place if theirs < mine - GAIN else None

    def _take(self, question: Question, place: Ints, draft: Draft, before: Draft) -> None:
        """Put the solver's answer in the place of the built-in one, as far as an order is found."""
        trial = before.layout.copy()
        steps, refused = schedule(trial, _wants(question, place))
        if question.cost(trial.place) >= question.cost(question.start) - GAIN:
            self.told += f", but {len(refused)} of its moves find no order"
            return
        draft.layout = trial
        draft.steps = before.steps + steps


def _wants(question: Question, place: Ints) -> list[Want]:
    """The moves that lead to a place for each block, each with what it is for."""
    layout, home = question.search.layout, question.search.home
    emptied = np.bincount(place, minlength=len(layout.hosts)) == 0
    wants = []
    for block in np.flatnonzero(place != home):
        source = int(home[block])
        name = layout.hosts[source]
        reason = f"empty {name}" if emptied[source] else f"room for others on {name}"
        wants.append(Want(int(block), int(place[block]), f"exact: {reason}"))
    return wants


def _of_packing(draft: Draft) -> Question:
    """Hosts that carry VMs, and moves. Room is left as the built-in stage leaves it on average."""
    search, bands = packing(draft), draft.policy.thresholds
    closing, most = closable(draft, search), draft.policy.limits.moves_per_host
    vms = search.layout.used_count[closing]
    share = min(1.0, float(vms.mean()) / most) if len(vms) else 0.0
    search.cpu_limit = search.cpu_limit * (bands.fill * (1.0 - bands.margin * share))
    prices = host_prices(search.layout)
    return Question(search, prices, closing, search.home, draft.room(), most)


def _of_easing(draft: Draft) -> Question | None:
    """What crowded hosts cost, and moves; None where crowding costs nothing."""
    if not draft.policy.costs.crowding:
        return None
    search = easing(draft)
    count = len(search.layout.hosts)
    never = np.zeros(count, dtype=np.bool_)
    return Question(search, np.zeros(count), never, search.home, draft.room(), draft.room())


QUESTIONS: Mapping[Objective, Callable[[Draft], Question | None]] = MappingProxyType(
    {Objective.PACK: _of_packing, Objective.QUIET: _of_easing}
)
