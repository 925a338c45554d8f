"""The exact engine on drawn sites: its question, and its answers."""

from dataclasses import replace

from hypothesis import event, given, settings

from balancerd.core.assess import assess_layout
from balancerd.core.exact import planner_with
from balancerd.core.exact.assignment import assignment
from balancerd.core.exact.engine import QUESTIONS
from balancerd.core.history import History
from balancerd.core.model import Snapshot
from balancerd.core.planner import plan
from balancerd.core.planner.draft import Draft
from balancerd.core.planner.pack import pack
from balancerd.core.policy import Objective, Policy
from balancerd.core.survey import lay_out
from tests.property.drawn import histories, policies, snapshots
from tests.sites import NOW
from tests.unit.test_exact import broken_rows, highs


def packing(found: Policy, engine: str) -> Policy:
    return Policy.model_validate(
        found.model_dump() | {"objective": Objective.PACK, "engine": engine}
    )


@given(snapshots(), policies(), histories())
def test_what_the_built_in_search_finds_keeps_every_row_of_the_program(
    snapshot: Snapshot, drawn: Policy, history: History
) -> None:
    """Dies when a row forbids what the rules allow: a limit too low, a host taken for closed."""
    layout = lay_out(snapshot, packing(drawn, "exact"), history, NOW)
    draft = Draft(layout, assess_layout(layout, NOW), history, NOW)
    question = QUESTIONS[Objective.PACK](draft)
    pack(draft)
    question = replace(question, start=draft.layout.place.copy())
    found = assignment(question)
    assert broken_rows(found.program, found.program.start) == []
    event(f"{len(draft.steps)} steps")


@settings(max_examples=60, deadline=None)
@given(snapshots(), policies(), histories())
def test_an_exact_plan_is_as_sound_as_any(
    snapshot: Snapshot, drawn: Policy, history: History
) -> None:
    builtin = plan(snapshot, packing(drawn, "builtin"), history, NOW)
    exact = planner_with(highs)(snapshot, packing(drawn, "exact"), history, NOW)
    assert exact.certificate is not None
    assert exact.certificate.violations == ()
    event("another plan" if exact.moves != builtin.moves else "the same plan")
