"""libvirt's states in balancerd's words: the pairs that were seen on real hosts."""

from itertools import product

import pytest

from balancerd.adapters.libvirt.jobs import figures_of, job_of, progress_of
from balancerd.adapters.libvirt.states import Condition, Job, presence, vm_state
from balancerd.core.model import VMState
from balancerd.core.observation import Presence

# (state, reason, job) as libvirt numbers them -> what a reading says, what `locate` says
SEEN = [
    ((1, 1, Job.NONE), VMState.RUNNING, Presence.RUNNING),
    ((1, 5, Job.NONE), VMState.RUNNING, Presence.RUNNING),
    ((1, 1, Job.OUTGOING), VMState.RUNNING, Presence.RUNNING_WITH_JOB),
    ((1, 1, Job.OTHER), VMState.RUNNING, Presence.RUNNING),
    ((1, 2, Job.INCOMING), VMState.RUNNING, Presence.RUNNING),
    ((1, 10, Job.NONE), VMState.RUNNING, Presence.POSTCOPY),
    ((1, 11, Job.NONE), VMState.POSTCOPY_FAILED, Presence.POSTCOPY_FAILED),
    ((3, 1, Job.NONE), VMState.PAUSED, Presence.PAUSED),
    ((3, 1, Job.ARRIVED), VMState.PAUSED, Presence.HANDED_OVER),
    ((3, 5, Job.NONE), VMState.PAUSED, Presence.PAUSED),
    ((3, 5, Job.ARRIVED), VMState.PAUSED, Presence.PAUSED),
    ((3, 2, Job.INCOMING), VMState.INCOMING, Presence.INCOMING),
    ((3, 11, Job.INCOMING), VMState.INCOMING, Presence.INCOMING),
    ((3, 2, Job.NONE), VMState.OUTGOING, Presence.OUTGOING),
    ((3, 2, Job.OUTGOING), VMState.OUTGOING, Presence.RUNNING_WITH_JOB),
    ((3, 12, Job.OUTGOING), VMState.OUTGOING, Presence.RUNNING_WITH_JOB),
    ((3, 13, Job.OUTGOING), VMState.POSTCOPY_FAILED, Presence.POSTCOPY_FAILED),
    ((4, 0, Job.NONE), VMState.OTHER, Presence.RUNNING),
    ((5, 1, Job.NONE), VMState.SHUTOFF, Presence.SHUTOFF),
    ((5, 3, Job.NONE), VMState.CRASHED, Presence.CRASHED),
    ((5, 4, Job.NONE), VMState.MIGRATED, Presence.MIGRATED),
    ((5, 6, Job.NONE), VMState.SHUTOFF, Presence.FAILED),
    ((6, 0, Job.NONE), VMState.CRASHED, Presence.CRASHED),
    ((7, 0, Job.NONE), VMState.OTHER, Presence.RUNNING),
]


@pytest.mark.parametrize(("condition", "state", "where"), SEEN)
def test_every_state_that_was_seen_has_its_word(
    condition: tuple[int, int, Job], state: VMState, where: Presence
) -> None:
    """Dies when two rows of a table are swapped so that a general one hides a special one."""
    assert vm_state(Condition(*condition)) is state
    assert presence(Condition(*condition)) is where


def test_no_state_of_a_later_libvirt_says_that_a_vm_may_be_touched() -> None:
    touchable = {Presence.OUTGOING, Presence.INCOMING, Presence.HANDED_OVER, Presence.ABSENT}
    for state, reason, job in product((0, 8, 99), (0, 1, 2, 99), Job):
        condition = Condition(state, reason, job)
        assert vm_state(condition) is VMState.OTHER
        assert presence(condition) not in touchable


def test_a_half_with_a_living_job_is_never_offered_for_destruction() -> None:
    """In the switch-over of a healthy migration the source is paused and the target runs.

    Dies without the row (paused, any, outgoing job): the table would have the source destroyed.
    """
    for reason in range(16):
        assert presence(Condition(3, reason, Job.OUTGOING)) is not Presence.OUTGOING


RUNNING_JOB = {
    "type": 2,
    "operation": 5,
    "time_elapsed": 4200,
    "data_total": 300,
    "data_processed": 100,
    "data_remaining": 200,
    "memory_iteration": 3,
    "memory_dirty_rate": 250,
    "memory_page_size": 4096,
    "auto_converge_throttle": 30,
}


def test_a_running_job_tells_its_progress_in_bytes_and_seconds() -> None:
    progress = progress_of(RUNNING_JOB)
    assert progress is not None
    assert (progress.total, progress.processed, progress.remaining) == (300, 100, 200)
    assert (progress.iteration, progress.elapsed, progress.throttle) == (3, 4.2, 30)
    assert progress.dirty_rate == 250 * 4096


def test_no_job_and_a_job_that_only_cleans_up_are_no_progress() -> None:
    """Dies when an ended job, whose figures are all zero, counts as one that made no progress."""
    assert progress_of({"type": 0}) is None
    assert progress_of({"type": 5, "operation": 5}) is None
    assert progress_of({}) is None


@pytest.mark.parametrize(
    ("statistics", "job"),
    [
        ({}, Job.NONE),
        ({"type": 0}, Job.NONE),
        ({"type": 2, "operation": 5}, Job.OUTGOING),
        ({"type": 4, "operation": 5}, Job.OUTGOING),  # failed, and still cleaning up
        ({"type": 2}, Job.OUTGOING),
        ({"type": 2, "operation": 9}, Job.OTHER),  # a backup
    ],
)
def test_a_job_is_a_migration_until_it_is_gone(statistics: dict[str, int], job: Job) -> None:
    assert job_of(statistics) is job


def test_figures_of_a_completed_job_are_none_where_they_were_not_told() -> None:
    full = figures_of({"data_processed": 7, "memory_iteration": 2, "downtime": 156})
    assert (full.bytes, full.iterations, full.downtime, full.seconds) == (7, 2, 0.156, None)
    assert figures_of({}).bytes is None


def test_a_pause_is_told_without_what_the_clocks_of_two_hosts_differ() -> None:
    """As seen of a target 5 s ahead; dies if its VM counts as one that stood still for so long."""
    assert figures_of({"downtime": 5105, "downtime_net": 104}).downtime == 0.104
