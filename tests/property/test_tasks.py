"""What is kept beside the tasks of a plan says the same as a look at each of them."""

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from balancerd.core.executing.execution import OPEN, UNDER_WAY, Stage, Task, Tasks
from balancerd.core.many_fields import replace
from balancerd.core.model import Method
from balancerd.core.plan import Action, Move, Sleep

STAGES = st.sampled_from(Stage)


@st.composite
def actions(draw: st.DrawFn) -> list[Action]:
    """Moves of few VMs, some of them more than once, and hosts that go to sleep."""
    vms = draw(st.lists(st.sampled_from(["a", "b", ""]), max_size=8))
    return [
        Move(number, vm, "h1", "h2", Method.PRE_COPY, "test") if vm else Sleep(number, "h3", "test")
        for number, vm in enumerate(vms, start=1)
    ]


@given(actions(), st.data())
def test_tasks_are_found_by_stage_and_vm_whatever_became_of_them(
    drawn: list[Action], data: st.DataObject
) -> None:
    """Dies when a task stays where it was before it changed, or a copy changes its original."""
    first = Tasks(Task(action) for action in drawn)
    tasks = first.in_hand()
    for number in data.draw(
        st.lists(st.sampled_from(list(first)), max_size=20) if first else st.just([])
    ):
        tasks[number] = replace(tasks[number], stage=data.draw(STAGES))
    for stages in (OPEN, UNDER_WAY, {Stage.DONE}):
        found = [number for number, task in tasks.items() if task.stage in stages]
        assert tasks.at(stages) == found
        assert tasks.any_at(stages) == bool(found)
    moves = [task for task in tasks.values() if isinstance(task.action, Move)]
    assert tasks.moves_under_way() == [task for task in moves if task.stage in UNDER_WAY]
    assert list(tasks.of("a")) == [task.action.number for task in moves if task.move.vm == "a"]
    assert first.at({Stage.WAITING}) == list(first)


@given(STAGES, st.text())
def test_a_task_is_altered_as_any_dataclass_is(stage: Stage, detail: str) -> None:
    """Dies when a value is lost or another one changes."""
    task = Task(Sleep(1, "h1", "test"), since=7.0)
    before = dataclasses.replace(task)
    altered = replace(task, stage=stage, detail=detail)
    assert altered == dataclasses.replace(task, stage=stage, detail=detail)
    assert task == before
