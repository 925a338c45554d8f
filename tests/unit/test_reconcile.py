"""The state-pair table: complete where it must be, silent where it must not act."""

from itertools import product

import pytest

from balancerd.core.executing.reconcile import (
    CLEAN_UP_PATIENCE,
    DOWN,
    ORPHAN_PATIENCE,
    TABLE,
    Act,
    judge,
    may_start,
    may_watch,
)
from balancerd.core.observation import Presence
from balancerd.core.outcome import Outcome

P = Presence
DESTROYS = {Act.DESTROY_SOURCE, Act.UNDEFINE_SOURCE, Act.DESTROY_TARGET, Act.UNDEFINE_TARGET}


@pytest.mark.parametrize("other", list(Presence))
def test_nothing_is_settled_while_a_host_does_not_answer(other: Presence) -> None:
    for pair in ((P.UNREACHABLE, other), (other, P.UNREACHABLE)):
        assert judge(*pair, waited=1e9).outcome is None


@pytest.mark.parametrize("other", list(Presence))
def test_nothing_is_settled_while_a_job_runs(other: Presence) -> None:
    for pair in ((P.RUNNING_WITH_JOB, other), (other, P.RUNNING_WITH_JOB)):
        assert judge(*pair, waited=1e9).outcome is None


def test_no_act_ever_ends_a_copy_that_runs() -> None:
    """Dies when any row of the table destroys the side that says RUNNING."""
    for (source, target), finding in TABLE.items():
        if source is P.RUNNING:
            assert not {Act.DESTROY_SOURCE, Act.UNDEFINE_SOURCE} & set(finding.acts)
        if target is P.RUNNING:
            assert not {Act.DESTROY_TARGET, Act.UNDEFINE_TARGET} & set(finding.acts)


def test_no_act_leaves_a_vm_without_a_copy() -> None:
    """Whatever is destroyed, the other side runs, or is resumed by the same finding."""
    for (source, target), finding in TABLE.items():
        acts = set(finding.acts)
        if Act.DESTROY_SOURCE in acts:
            assert target is P.RUNNING or Act.RESUME_TARGET in acts
        if Act.DESTROY_TARGET in acts:
            assert source is P.RUNNING or Act.RESUME_SOURCE in acts


def test_no_act_starts_a_second_copy() -> None:
    """A copy is resumed only where the other side is gone, or is destroyed first."""
    for (source, target), finding in TABLE.items():
        acts = finding.acts
        if Act.RESUME_SOURCE in acts and target not in (P.ABSENT, P.FAILED):
            assert acts.index(Act.DESTROY_TARGET) < acts.index(Act.RESUME_SOURCE)
        if Act.RESUME_TARGET in acts:
            assert source in (P.ABSENT, P.MIGRATED)


def test_a_vm_paused_by_its_user_is_never_touched() -> None:
    for other in Presence:
        assert not judge(P.PAUSED, other, waited=1e9).acts


def test_two_running_copies_are_for_a_person() -> None:
    finding = judge(P.RUNNING, P.RUNNING, waited=0)
    assert finding.outcome is Outcome.QUARANTINED
    assert not finding.acts


def test_broken_post_copy_is_never_destroyed() -> None:
    for target in Presence:
        assert not DESTROYS & set(judge(P.POSTCOPY_FAILED, target, waited=1e9).acts)


@pytest.mark.parametrize("gone", [P.ABSENT, P.SHUTOFF, P.CRASHED])
def test_a_vm_of_which_either_host_has_lost_its_part_is_lost(gone: Presence) -> None:
    """Dies when what is left of it is waited for without end."""
    for pair in ((P.POSTCOPY_FAILED, gone), (gone, P.POSTCOPY_FAILED)):
        finding = judge(*pair, waited=0.0)
        assert (finding.outcome, finding.acts) == (Outcome.LOST, ())


STOPPED = (P.ABSENT, P.MIGRATED, P.SHUTOFF, P.CRASHED, P.FAILED)


@pytest.mark.parametrize(("source", "target"), list(product(STOPPED, STOPPED)))
def test_what_runs_on_neither_host_is_not_waited_for_without_end(
    source: Presence, target: Presence
) -> None:
    """Dies when one way of having ended is forgotten on either side: real hosts knew one more."""
    finding = judge(source, target, waited=0.0)
    assert (finding.outcome, finding.acts) == (Outcome.LOST, ())


@pytest.mark.parametrize("left", [P.RUNNING_WITH_JOB, P.OUTGOING, P.POSTCOPY_FAILED, P.MIGRATED])
def test_memory_that_still_follows_is_waited_for(left: Presence) -> None:
    assert judge(left, P.POSTCOPY, waited=1e9).outcome is None


@pytest.mark.parametrize(("source", "half"), list(product(DOWN, (P.POSTCOPY, P.INCOMING))))
def test_memory_that_has_lost_its_source_may_be_whole_and_is_given_up_when_it_is_not(
    source: Presence, half: Presence
) -> None:
    """Dies when the half that real hosts were seen to keep is waited for without end."""
    assert judge(source, half, waited=ORPHAN_PATIENCE - 1).outcome is None
    finding = judge(source, half, waited=ORPHAN_PATIENCE + 1)
    assert (finding.outcome, finding.acts) == (Outcome.LOST, ())


def test_libvirt_gets_its_time_to_clean_up_the_targets_half() -> None:
    assert judge(P.RUNNING, P.INCOMING, waited=CLEAN_UP_PATIENCE - 1).outcome is None
    finding = judge(P.RUNNING, P.INCOMING, waited=CLEAN_UP_PATIENCE + 1)
    assert finding.outcome is Outcome.FAILED
    assert not finding.acts


def test_a_migration_starts_only_between_a_running_source_and_a_target_without_a_live_copy() -> (
    None
):
    allowed = {pair for pair in product(Presence, Presence) if not may_start(*pair)}
    assert allowed == {(P.RUNNING, P.ABSENT), (P.RUNNING, P.MIGRATED), (P.RUNNING, P.SHUTOFF)}


@pytest.mark.parametrize("ours", [True, False])
def test_a_job_is_watched_only_where_the_target_holds_its_half(ours: bool) -> None:
    """Dies when a job on the source alone is taken for a migration to this target."""
    watched = {target for target in Presence if may_watch(target, ours=ours)}
    assert watched == ({P.INCOMING, P.UNREACHABLE} if ours else {P.INCOMING})
