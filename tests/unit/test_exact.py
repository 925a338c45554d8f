"""The exact engine: what it is asked, what is taken of its answers, and what where it has none."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from balancerd.adapters.highs import process
from balancerd.adapters.highs.solver import ARRAYS
from balancerd.core.exact import Program, Solution, Solver, planner_with
from balancerd.core.exact.assignment import assignment
from balancerd.core.exact.drawing import Question
from balancerd.core.exact.engine import QUESTIONS, Attempt
from balancerd.core.model import Snapshot
from balancerd.core.past.history import History
from balancerd.core.placing.assess import assess_layout
from balancerd.core.placing.survey import lay_out
from balancerd.core.plan import Plan
from balancerd.core.planner.draft import Draft
from balancerd.core.policies.policy import Policy
from balancerd.core.policies.rule import ConstraintRule
from tests.numa import site as layered
from tests.sites import NOW, policy, rule, site, told

SITE = "h1 10c 64G: a 3c 8G, b 3c 8G | h2 10c 64G: c 2c 8G, d 2c 8G | h3 10c 64G: e 1c 4G"
COSTS = {"host": 25.0, "move": 1.0, "gib": 0.05}


def highs(program: Program, seconds: float, _memory: int) -> Solution:
    """HiGHS in this process, which is quicker than to start one for each test."""
    found = process.solution({name: getattr(program, name) for name in ARRAYS}, seconds)
    x = found["x"] if len(found["x"]) else None
    return Solution(x, float(found["bound"]), str(found["told"]))


def rules(engine: str, *constraints: ConstraintRule, **tables: dict[str, Any]) -> Policy:
    found = policy("pack", *constraints, costs=COSTS, power={"reserve": 0}, **tables)
    return Policy.model_validate(found.model_dump() | {"engine": engine})


def planned(text: str, found: Policy, solve: Solver = highs) -> Plan:
    made = planner_with(solve)(site(text), found, History(), NOW)
    assert made.certificate is not None
    assert made.certificate.violations == ()
    return made


def test_the_builtin_engine_asks_no_solver() -> None:
    def never(*_: object) -> Solution:
        raise AssertionError("was asked")

    made = planned(SITE, rules("builtin"), never)
    assert "exact" not in made.reason


def test_a_proven_optimum_is_said_to_be_one() -> None:
    made = planned(SITE, rules("exact"))
    assert "; exact: optimal, costs " in made.reason


def worse(program: Program, _seconds: float, _memory: int) -> Solution:
    """Everything stays where it is: an answer, but not as good as the built-in one."""
    return Solution(np.zeros(len(program.cost)), 0.0, "time limit reached")


def test_an_answer_that_is_no_better_is_not_taken() -> None:
    builtin, made = planned(SITE, rules("builtin")), planned(SITE, rules("exact"), worse)
    assert told(made) == told(builtin) != []
    assert "time limit reached, costs " in made.reason
    assert "find no order" not in made.reason


def test_where_the_solver_fails_the_built_in_plan_stands_and_says_so() -> None:
    def failing(*_: object) -> Solution:
        return Solution(None, float("-inf"), "was killed after 15 s")

    builtin, made = planned(SITE, rules("builtin")), planned(SITE, rules("exact"), failing)
    assert told(made) == told(builtin)
    assert made.reason.endswith("; exact: was killed after 15 s; the built-in plan stands")


def test_an_objective_without_costs_is_left_to_the_built_in_planner() -> None:
    found = rules("exact").model_copy(update={"objective": policy("spread").objective})
    assert 'has no say in objective "spread"' in planned(SITE, found).reason


APART = "h1 10c 64G: a 1c 8G, b 1c 8G | h2 10c 64G: c 1c 8G | h3 10c 64G: d 1c 8G"


def soft(kind: str, vms: str, weight: float, hosts: str = "") -> ConstraintRule:
    return rule(kind, vms, hosts).model_copy(update={"weight": weight})


@pytest.mark.parametrize(
    ("wish", "kept"),
    [
        (soft("apart", "a d", 60.0), lambda at: at["a"] != at["d"]),
        (soft("together", "c d", 60.0), lambda at: at["c"] == at["d"]),
        (soft("pin", "a", 60.0, "h2"), lambda at: at["a"] == "h2"),
        (soft("avoid", "a", 60.0, "h1"), lambda at: at["a"] != "h1"),
    ],
)
def test_a_wish_that_is_worth_more_than_a_host_is_kept_by_the_solver_too(
    wish: ConstraintRule, kept: Callable[[dict[str, str]], bool]
) -> None:
    """Where the built-in stage has no idea. Dies when its weight is left out of the program."""
    draft, words = decided(rules("exact", wish), APART)
    at = {
        vms[0]: draft.layout.hosts[p]
        for vms, p in zip(draft.layout.blocks, draft.layout.place, strict=True)
    }
    assert kept(at), words
    assert len(set(at.values())) <= 2


@pytest.mark.parametrize("kind", ["apart", "together"])
def test_a_group_costs_in_the_program_what_it_costs_in_the_search(kind: str) -> None:
    """Whatever the answer. Dies when the constant part, or a step of c², is wrong."""
    text = "h1 10c 64G: a 1c 8G, b 1c 8G | h2 10c 64G: c 1c 8G | h3 10c 64G: d 1c 8G, e 1c 8G"
    question = asked(text, rules("exact", soft(kind, "a b c d e", 7.0)))
    for hosts in itertools.product(range(3), repeat=5):
        given = replace(question, start=np.array(hosts))
        found = assignment(given)
        assert broken_rows(found.program, found.program.start) == []
        said = float(found.program.cost @ found.program.start) + found.constant
        assert said == pytest.approx(given.cost(given.start))


def test_vms_bound_to_nodes_fill_no_node_beyond_its_limit() -> None:
    """Three of 3 cores do not go onto two nodes of 5 each, though 10 are 1 more than 9.

    Dies when nodes are summed up over the host.
    """
    hosts = {"h1": "6+6: a 3/0, b 3/0, c 3/1", "h2": "5+5: d 1", "h3": "6+6: e 3/0"}
    snapshot = layered(**hosts)
    found = rules("exact", capacity={"cpu_overcommit": 1.0, "memory_reserve_share": 0.0})
    question = question_of(snapshot, found)
    layout = question.search.layout
    program = assignment(question).program
    block, host = assignment(question).block, assignment(question).host
    columns = {
        (layout.blocks[b][0], layout.hosts[h]): i
        for i, (b, h) in enumerate(zip(block, host, strict=True))
    }
    rows = [columns[vm, "h2"] for vm in ("a", "b")]
    assert highs(forced(program, rows), 10.0, 0).x is not None
    assert highs(forced(program, [*rows, columns["c", "h2"]]), 10.0, 0).x is None


def forced(program: Program, columns: list[int]) -> Program:
    """The program in which these columns have to be 1."""
    count = len(columns)
    return replace(
        program,
        low=np.concatenate([program.low, np.ones(count)]),
        high=np.concatenate([program.high, np.ones(count)]),
        starts=np.concatenate([program.starts, program.starts[-1] + 1 + np.arange(count)]),
        columns=np.concatenate([program.columns, columns]),
        values=np.concatenate([program.values, np.ones(count)]),
    )


def asked(text: str, found: Policy) -> Question:
    """The question of a site, as the solver gets it."""
    return question_of(site(text), found)


def question_of(snapshot: Snapshot, found: Policy) -> Question:
    layout = lay_out(snapshot, found, History(), NOW)
    draft = Draft(layout, assess_layout(layout, NOW), History(), NOW, layout.copy())
    question = QUESTIONS[found.objective](draft)
    assert question is not None
    return question


def test_the_program_weighs_moves_and_hosts_as_the_policy_does() -> None:
    """The cost of an answer in the program is the one that the search counts."""
    question = asked(SITE, rules("exact"))
    found = assignment(question)
    home = question.search.home
    x = np.zeros(len(found.program.cost))
    x[: len(found.block)] = found.host == home[found.block]
    x[len(found.block) :] = 1.0
    assert float(found.program.cost @ x) == question.cost(home) == 75.0
    place = home.copy()
    place[question.search.layout.block_of["e"]] = 1
    assert question.cost(place) == 50.0 + 1.0 + 4 * 0.05


def broken_rows(program: Program, x: np.ndarray) -> list[int]:
    """Rows that an answer does not keep."""
    broken = []
    for row in range(len(program.low)):
        span = slice(program.starts[row], program.starts[row + 1])
        value = float(program.values[span] @ x[program.columns[span]])
        if not program.low[row] - 1e-6 <= value <= program.high[row] + 1e-6:
            broken.append(row)
    return broken


def test_vms_kept_apart_do_not_meet_in_the_program() -> None:
    """Dies when groups are left out of the program."""
    question = asked(SITE, rules("exact", rule("apart", "c e")))
    found = assignment(question)
    e, h2, h3 = question.search.layout.block_of["e"], 1, 2
    x = found.program.start.copy()
    assert broken_rows(found.program, x) == []
    pairs = len(found.block)
    x[:pairs][found.block == e] = found.host[found.block == e] == h2
    x[pairs + h3] = 0.0
    assert len(broken_rows(found.program, x)) == 1
    free = assignment(asked(SITE, rules("exact"))).program
    assert broken_rows(free, x) == []


def test_crowding_is_weighed_against_moves_where_it_has_a_price() -> None:
    """Host h1 holds 6 of 10 cores, of which 5 are free of charge: one of its VMs leaves."""
    found = policy("quiet", costs={"crowding": 10.0, "crowded": 0.5, "move": 1.0, "gib": 0.0})
    found = Policy.model_validate(found.model_dump() | {"engine": "exact"})
    made = planned(SITE, found)
    assert len(made.moves) == 1
    assert "; exact: optimal, costs 1 where the built-in plan costs 1 " in made.reason
    free = found.model_copy(update={"costs": policy("quiet").costs})
    assert 'has no say in objective "quiet"' in planned(SITE, free).reason


def decided(found: Policy, text: str = SITE) -> tuple[Draft, str]:
    """What becomes of a draft for which the built-in stage has no idea at all."""
    layout = lay_out(site(text), found, History(), NOW)
    draft = Draft(layout, assess_layout(layout, NOW), History(), NOW, layout.copy())
    attempt = Attempt(highs, found)
    attempt.stage(lambda _: None, draft)
    return draft, attempt.told


def test_what_is_better_is_taken_with_what_each_move_is_for() -> None:
    draft, words = decided(rules("exact"))
    assert words == (
        "optimal, costs 51.2 where the built-in plan costs 75 and nothing less than 51.2"
    )
    assert {step.reason for step in draft.steps} == {"exact: empty h3"}


def test_a_shadow_tells_what_there_was_to_gain_and_leaves_it() -> None:
    """Dies when the shadow acts."""
    draft, words = decided(rules("shadow"))
    assert draft.steps == []
    assert (draft.layout.place == draft.layout.origin).all()
    assert words == decided(rules("exact"))[1]


@pytest.mark.parametrize("limit", ["moves_per_host", "per_plan"])
def test_no_more_vms_move_than_the_policy_lets_them(limit: str) -> None:
    """Two would have to, to empty a host."""
    text = SITE + ", f 0.5c 4G"
    assert len(decided(rules("exact", limits={limit: 2}), text)[0].steps) == 2
    assert decided(rules("exact", limits={limit: 1}), text)[0].steps == []


@pytest.mark.parametrize("objective", ["pack", "quiet"])
def test_a_site_without_vms_asks_the_solver_nothing(objective: str) -> None:
    """Dies if a question without columns is a traceback."""
    found = policy(objective, costs=COSTS | {"crowding": 1.0})
    found = Policy.model_validate(found.model_dump() | {"engine": "exact"})
    assert (
        "left out, with 0 ways for VMs to be" in planned("h1 10c 64G: | h2 10c 64G:", found).reason
    )
