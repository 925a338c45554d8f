"""What cannot be settled is told to people, and ended by them."""

from dataclasses import replace
from pathlib import Path

import pytest

from balancerd.adapters.sqlite.ledger import Ledger
from balancerd.adapters.sqlite.reader import Reader
from balancerd.core.executing.closing import NO_WAY_BACK, NOT_OURS, TOLD_AFTER
from balancerd.core.executing.execution import LINGERS, Stage, Tasks
from balancerd.core.executing.executor import due, may_close, may_press
from balancerd.core.executing.messages import (
    AbortMigration,
    Acted,
    CloseWanted,
    Conclude,
    Settle,
    Unsettled,
)
from balancerd.core.observation import Presence
from balancerd.core.outcome import Outcome
from balancerd.core.past.record import UNSETTLED, Conclusion, Intent, IntentKind
from balancerd.core.policies.limits import Limits
from balancerd.core.units import GIB
from tests.executions import START, P, Run, left_under_way, of, one_move

ENDED = START + 60.0


def open_question(source: Presence = P.OUTGOING, target: Presence = P.SHUTOFF) -> Run:
    """A migration of ours has ended, and its hosts say something that fits no end."""
    run = one_move()
    run.started()
    run.feed(at=ENDED)
    run.ended(error="end of file while reading data")
    answer(run, ENDED, source, target)
    return run


def answer(run: Run, at: float, source: Presence, target: Presence) -> None:
    run.feed(at=at)
    run.located(1, source, target)


def told(run: Run) -> list[str]:
    return [one.detail for one in of(Unsettled, run.commands) if isinstance(one, Unsettled)]


def test_people_are_told_once_of_what_stays_open_and_again_of_other_answers() -> None:
    run = open_question()
    answer(run, ENDED + TOLD_AFTER - 1, P.OUTGOING, P.SHUTOFF)
    assert told(run) == []
    for seconds in (1, 60, 120):
        answer(run, ENDED + TOLD_AFTER + seconds, P.OUTGOING, P.SHUTOFF)
    assert [one.split(";")[0] for one in told(run)] == ["h1 says outgoing, h2 says shutoff"]
    answer(run, ENDED + TOLD_AFTER + 180, P.UNREACHABLE, P.SHUTOFF)
    assert [one.split(";")[0] for one in told(run)[1:]] == ["h1 says unreachable, h2 says shutoff"]


def test_people_are_told_of_a_job_that_may_not_be_ours_and_takes_too_long() -> None:
    """It is not given up, so that somebody has to know of it. Dies when it just goes on."""
    run = left_under_way(seen=False)
    late = int(run.execution.tasks[1].deadline)
    for second in range(5, late + 300, 5):
        run.progress(GIB + second, START + second)
        assert told(run) == [] or second > late
    assert told(run) == [f"h1 says running, migrating, h2 says incoming; {NOT_OURS}"]
    assert of(AbortMigration, run.commands) == []


def torn() -> Run:
    """A migration of ours that goes on in post-copy."""
    run = one_move()
    run.started()
    task = replace(run.execution.tasks[1], switched=True)
    run.execution = replace(run.execution, tasks=Tasks([task]))
    return run


def test_people_are_told_each_time_that_a_migration_stands_still_in_post_copy() -> None:
    """The VM waits for memory that does not come, and nobody but they can do anything about it.
    Dies when it is passed over as there is no way back, or given up, which libvirt refuses."""
    run, stall = torn(), int(Limits().stall)
    for copied, seconds in (GIB, range(5, 300, 5)), (2 * GIB, range(300, 600, 5)):
        for after in seconds:
            run.progress(copied, START + after)
            assert bool(told(run)) is (after > 5 + stall)
    first, second = told(run)
    assert first.startswith("stands still in post-copy, ")
    assert first.endswith(f"still on h1; {NO_WAY_BACK}")
    assert "close" not in first
    assert second != first
    assert of(AbortMigration, run.commands) == []


def test_nobody_is_told_of_a_migration_that_goes_on_in_post_copy_however_long_it_takes() -> None:
    run = torn()
    for second in range(5, int(2 * run.execution.tasks[1].deadline), 5):
        run.progress(GIB + second, START + second)
    assert told(run) == []


def keep_failing(seconds: float) -> Run:
    """A failed move whose target keeps a definition that its libvirt does not remove so long."""
    run = open_question(P.RUNNING, P.SHUTOFF)
    while run.view.now < ENDED + seconds:
        run.feed(Acted(1, "h2: undefine: it has snapshots"))
        at = max(due(run.execution) or 0.0, run.view.now + 1.0)
        answer(run, at, P.RUNNING, P.SHUTOFF)
    run.feed(Acted(1, "h2: undefine: it has snapshots"))
    return run


def test_people_are_told_once_of_what_cannot_be_put_right() -> None:
    """Dies when each try counts as a beginning: then it is tried for ever, and nobody knows."""
    assert told(keep_failing(TOLD_AFTER - 20)) == []
    run = keep_failing(TOLD_AFTER * 5)
    assert told(run) == [
        "h1 says running, h2 says shutoff; h2: undefine: it has snapshots;"
        " put it right on both hosts, then `balancerctl close a`"
    ]
    assert len(of(Settle, run.commands)) > 20
    assert run.outcome() is None


def test_what_cannot_be_put_right_holds_up_no_planning() -> None:
    """Dies when one definition that stays has the whole site wait for it."""
    assert not keep_failing(LINGERS * 2).execution.busy(ENDED + LINGERS * 2)


def test_nobody_is_told_of_what_was_settled() -> None:
    run = open_question()
    answer(run, ENDED + TOLD_AFTER + 1, P.RUNNING, P.ABSENT)
    assert (run.outcome(), told(run)) == (Outcome.FAILED, [])


def test_whoever_closes_it_has_it_concluded_and_nothing_touched() -> None:
    run = open_question()
    assert may_close([run.execution], "a") == ""
    (end, *_) = of(Conclude, run.feed(CloseWanted("a", "anna")))
    assert isinstance(end, Conclude)
    assert end.conclusion.detail == "closed by anna: h1 says outgoing, h2 says shutoff"
    assert (run.stage(), of(Settle, run.commands)) == (Stage.QUARANTINED, [])


def test_an_operator_is_told_where_nothing_can_be_done_to_a_migration() -> None:
    """Dies when he is told that it is given up or hurried, and it is not."""
    whole = one_move()
    whole.started()
    assert may_press([whole.execution], "a") == ""
    assert "post-copy" in may_press([torn().execution], "a")
    assert may_press([left_under_way(seen=True).execution], "a") == ""
    assert may_press([left_under_way(seen=False).execution], "a") == NOT_OURS
    assert "its hosts are being asked" in may_press([open_question().execution], "a")
    assert may_press([whole.execution], "b") == "is not being moved by balancerd"


def test_a_migration_that_runs_is_not_closed() -> None:
    """Dies when an operator can make balancerd forget what it has under way."""
    run = one_move()
    run.started()
    assert "`balancerctl abort a`" in may_close([run.execution], "a")
    run.feed(CloseWanted("a", "anna"))
    assert run.stage() is Stage.RUNNING


def test_nobody_is_sent_to_give_up_what_can_only_be_waited_for() -> None:
    """Dies when closing is refused with the advice to abort, which is refused in its turn."""
    assert may_close([torn().execution], "a") == NO_WAY_BACK
    assert may_close([left_under_way(seen=False).execution], "a") == NOT_OURS


@pytest.mark.parametrize("target", [P.ABSENT, P.UNREACHABLE, P.POSTCOPY])
def test_nor_is_one_whose_source_still_has_a_job(target: Presence) -> None:
    run = open_question(P.RUNNING_WITH_JOB, target)
    assert "its job on h1" in may_close([run.execution], "a")
    run.feed(CloseWanted("a", "anna"))
    assert run.stage() is Stage.VERIFYING


def test_what_balancerd_does_not_move_cannot_be_closed() -> None:
    assert may_close([open_question().execution], "b") == "is not being moved by balancerd"


def test_status_tells_of_what_is_open_until_it_is_concluded(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.db") as ledger:
        move = Intent(IntentKind.MIGRATE, START, "h1", "a", "uuid", "h2")
        intent = ledger.intend(move)
        assert intent is not None
        ledger.record_event(START - 1, UNSETTLED, "a", "of another move")
        ledger.record_event(START + 1, UNSETTLED, "a", "h1 says this")
        ledger.record_event(START + 2, UNSETTLED, "a", "h1 says that")
        reader = Reader(ledger.database)
        assert reader.status(START + 3).unsettled == ("a to h2: h1 says that",)
        ledger.conclude(Conclusion(intent, START + 4, Outcome.QUARANTINED))
        assert reader.status(START + 5).unsettled == ()
