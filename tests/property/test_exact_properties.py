"""The exact engine on drawn sites: its question, and its answers."""

from dataclasses import replace

import numpy as np
from hypothesis import event, given, settings
from hypothesis import strategies as st

from balancerd.core.exact import planner_with
from balancerd.core.exact.assignment import assignment
from balancerd.core.exact.engine import QUESTIONS, Attempt
from balancerd.core.model import Snapshot
from balancerd.core.past.history import History
from balancerd.core.placing.assess import assess_layout
from balancerd.core.placing.survey import lay_out
from balancerd.core.planner import STAGES, plan
from balancerd.core.planner.draft import Draft
from balancerd.core.policies.choices import Objective
from balancerd.core.policies.policy import Policy
from tests.property.drawn import histories, policies, snapshots
from tests.sites import NOW
from tests.unit.test_exact import broken_rows, highs

CROWDED = {"crowding": 10.0, "crowded": 0.2}


def under(found: Policy, objective: Objective, engine: str) -> Policy:
    """The policy with another objective, which crowding has a price in, and an engine."""
    changes = {"objective": objective, "engine": engine, "costs": CROWDED}
    return Policy.model_validate(found.model_dump() | changes)


OBJECTIVES = st.sampled_from(sorted(QUESTIONS))


@given(snapshots(), policies(), histories(), OBJECTIVES)
def test_what_the_built_in_search_finds_is_an_answer_of_the_program(
    snapshot: Snapshot, drawn: Policy, history: History, objective: Objective
) -> None:
    """It keeps every row, and costs there what it costs. Dies when a row forbids what the rules
    allow (a limit too low, a host taken for closed), or when a price or a load is left out."""
    layout = lay_out(snapshot, under(drawn, objective, "exact"), history, NOW)
    draft = Draft(layout, assess_layout(layout, NOW), history, NOW, layout.copy())
    question = QUESTIONS[objective](draft)
    assert question is not None  # crowding has a price
    STAGES[objective](draft)
    moved = np.flatnonzero(draft.layout.place != question.start).tolist()
    seats = {block: draft.layout.seat(block) for block in moved}
    question = replace(question, start=draft.layout.place.copy(), seats=seats)
    found = assignment(question)
    program = found.program
    assert broken_rows(program, program.start) == []
    told = float(program.cost @ program.start) + found.constant
    counted = question.cost(question.start)
    assert told >= counted - 1e-6
    assert layout.factor or told <= counted + 1e-6
    crowded = np.isinf(program.upper) & (program.start > 0.01)
    assert len(broken_rows(program, program.start - 0.01 * crowded)) == crowded.sum()
    event(f"{objective}: {'some' if draft.steps else 'no'} steps")


@settings(max_examples=60, deadline=None)
@given(snapshots(), policies(), histories(), OBJECTIVES)
def test_an_exact_plan_is_as_sound_as_any(
    snapshot: Snapshot, drawn: Policy, history: History, objective: Objective
) -> None:
    builtin = plan(snapshot, under(drawn, objective, "builtin"), history, NOW)
    exact = planner_with(highs)(snapshot, under(drawn, objective, "exact"), history, NOW)
    assert exact.certificate is not None
    assert exact.certificate.violations == ()
    event(f"{objective}: {'another' if exact.moves != builtin.moves else 'the same'} plan")


@settings(max_examples=60, deadline=None)
@given(snapshots(), policies(), histories(), OBJECTIVES)
def test_a_solver_never_makes_it_dearer_and_in_the_shadow_nothing_else(
    snapshot: Snapshot, drawn: Policy, history: History, objective: Objective
) -> None:
    """Dies when an answer is taken for what the program says of it, or taken in the shadow."""
    places = {}
    for engine in ("builtin", "exact", "shadow"):
        by = under(drawn, objective, engine)
        layout = lay_out(snapshot, by, history, NOW)
        draft = Draft(layout, assess_layout(layout, NOW), history, NOW, layout.copy())
        question = QUESTIONS[objective](draft)
        assert question is not None
        cost = question.cost
        attempt = Attempt(highs, by)
        if engine == "builtin":
            STAGES[objective](draft)
        else:
            attempt.stage(STAGES[objective], draft)
            event(attempt.told.split(",")[0])
        places[engine] = draft.layout.place
    assert cost(places["exact"]) <= cost(places["builtin"]) + 1e-6
    assert (places["shadow"] == places["builtin"]).all()
