"""How many migrations at once and how fast: limits by weight, fair shares of links."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancerd.core.executing.execution import Stage
from balancerd.core.executing.messages import Ask, Intend, SetBandwidth, StartMigration, Tuned
from balancerd.core.executing.messages import Intended as Committed
from balancerd.core.executing.throttle import TELL_AGAIN, Transfer, shares
from balancerd.core.model import Link, Load, Method
from balancerd.core.observation import JobProgress, JobReport
from balancerd.core.plan import Move
from balancerd.core.policies.limits import Limits
from balancerd.core.units import GIB
from tests.executions import POLICY, START, P, Run, move, of

MB = 10**6
LINKS = (
    *(Link(f"h{n}", f"rack{n % 2}", 100.0 * MB) for n in (1, 2, 3, 4)),
    Link("rack0", "core", 150.0 * MB),
    Link("rack1", "core", 150.0 * MB),
)


@st.composite
def sites(draw: st.DrawFn) -> tuple[list[Transfer], dict[int, float]]:
    """Some links, and transfers over some of them each."""
    room = dict(enumerate(draw(st.lists(st.floats(1.0, 1e9), min_size=1, max_size=6))))
    paths = st.lists(st.sampled_from(sorted(room)), unique=True, max_size=4).map(tuple)
    transfers = st.lists(st.builds(Transfer, paths, st.floats(1.0, 1e9)), max_size=8)
    return draw(transfers), room


@given(sites())
def test_nobody_is_above_his_cap_and_no_link_above_its_room(
    site: tuple[list[Transfer], dict[int, float]],
) -> None:
    transfers, room = site
    rates = shares(transfers, room)
    for transfer, rate in zip(transfers, rates, strict=True):
        assert 0.0 < rate <= transfer.cap
    for link, size in room.items():
        used = sum(rate for t, rate in zip(transfers, rates, strict=True) if link in t.path)
        assert used <= size * (1 + 1e-9)


@given(sites())
def test_nothing_is_left_that_anybody_could_use(
    site: tuple[list[Transfer], dict[int, float]],
) -> None:
    """Dies when rates are divided once and what the capped leave over is not given on."""
    transfers, room = site
    rates = shares(transfers, room)
    used = {
        link: sum(rate for t, rate in zip(transfers, rates, strict=True) if link in t.path)
        for link in room
    }
    for transfer, rate in zip(transfers, rates, strict=True):
        full = any(used[link] >= room[link] * (1 - 1e-9) for link in transfer.path)
        assert rate >= transfer.cap * (1 - 1e-9) or full


@given(sites())
def test_nobody_gets_more_where_somebody_with_less_waits(
    site: tuple[list[Transfer], dict[int, float]],
) -> None:
    """Max-min: each that is below its cap crosses a full link on which nobody has more."""
    transfers, room = site
    rates = shares(transfers, room)
    for transfer, rate in zip(transfers, rates, strict=True):
        if rate >= transfer.cap * (1 - 1e-9):
            continue
        bottlenecks = []
        for link in transfer.path:
            there = [r for t, r in zip(transfers, rates, strict=True) if link in t.path]
            if sum(there) >= room[link] * (1 - 1e-9):
                bottlenecks.append(max(there))
        assert any(rate >= most * (1 - 1e-9) for most in bottlenecks)


def linked(*actions: Move, limits: Limits | None = None, **placement: str) -> Run:
    """Two racks of two hosts each: h1 and h3, h2 and h4; caps wide enough not to matter."""
    limits = limits or Limits(bandwidth=10**9, link_share=1.0, per_host=2, per_site=10)
    run = Run(*actions, policy=POLICY.model_copy(update={"limits": limits}), **placement)
    cluster = replace(run.view.snapshot.cluster, links=LINKS)
    run.view = replace(run.view, snapshot=replace(run.view.snapshot, cluster=cluster))
    return run


def begun(run: Run, *numbers: int) -> list[int]:
    """Start these moves at once; the caps they were started with."""
    run.feed()
    for number in numbers:
        run.located(number, P.RUNNING, P.ABSENT)
    run.feed(*(Committed(number, 70 + number) for number in numbers))
    starts = {c.task: c.bandwidth for c in run.commands if isinstance(c, StartMigration)}
    return [starts[number] for number in numbers]


def told(run: Run, at: float, *numbers: int) -> list[SetBandwidth]:
    """News of the jobs at a time; the caps that are changed then."""
    reports = []
    for number in numbers:
        m = run.execution.tasks[number].move
        progress = JobProgress(10 * GIB, int((at - START) * MB) + 1, GIB, 1, at - START)
        reports.append(JobReport(m.vm, m.source, m.target, at, progress))
    commands = [*run.feed(*reports, at=at), *run.feed()]
    return [command for command in commands if isinstance(command, SetBandwidth)]


def test_a_migration_alone_has_all_that_its_narrowest_link_gives() -> None:
    run = linked(move(1, "a", "h1", "h2"), a="h1")
    assert begun(run, 1) == [100 * MB]


def test_a_migration_has_no_more_than_its_cap_where_links_would_give_more() -> None:
    limits = Limits(bandwidth=30 * MB, link_share=1.0)
    run = linked(move(1, "a", "h1", "h2"), a="h1", limits=limits)
    assert begun(run, 1) == [30 * MB]


def test_migrations_that_start_at_once_divide_the_link_they_share() -> None:
    """Dies when each is given what it would have alone."""
    run = linked(move(1, "a", "h1", "h2"), move(2, "b", "h1", "h4"), a="h1", b="h1")
    assert begun(run, 1, 2) == [50 * MB, 50 * MB]


def test_the_intent_says_the_cap_too() -> None:
    run = linked(move(1, "a", "h1", "h2"), a="h1")
    begun(run, 1)
    (intend,) = of(Intend, run.commands)
    assert isinstance(intend, Intend)
    assert intend.intent.bandwidth == 100 * MB


def test_what_one_leaves_is_given_to_the_others_while_they_run() -> None:
    run = linked(move(1, "a", "h1", "h2"), move(2, "b", "h1", "h4"), a="h1", b="h1")
    begun(run, 1, 2)
    assert told(run, START + 10, 1, 2) == []
    run.ended(1)
    run.located(1, P.ABSENT, P.RUNNING)
    assert told(run, START + 20, 2) == [SetBandwidth(2, "b", "h1", 100 * MB)]


def test_a_migration_is_not_told_again_within_seconds() -> None:
    run = linked(move(1, "a", "h1", "h2"), move(2, "b", "h1", "h4"), a="h1", b="h1")
    begun(run, 1, 2)
    told(run, START + 1, 1, 2)
    run.ended(1)
    run.located(1, P.ABSENT, P.RUNNING)
    assert told(run, START + TELL_AGAIN - 1, 2) == []
    assert len(told(run, START + TELL_AGAIN + 1, 2)) == 1
    assert told(run, START + TELL_AGAIN + 2, 2) == []


@pytest.mark.parametrize(("used", "caps"), [(5, []), (40, [60 * MB]), (200, [10 * MB])])
def test_production_traffic_wins(used: int, caps: list[int]) -> None:
    """Megabytes per second that VMs send: little is not worth telling, and a tenth is kept."""
    run = linked(move(1, "a", "h1", "h2"), a="h1", x="h1")
    begun(run, 1)
    told(run, START + 1, 1)
    busy = Load(0.1, 0.1, GIB, network=float(used * MB), readings=10)
    snapshot = replace(run.view.snapshot, loads={**run.view.snapshot.loads, "x": busy})
    run.view = replace(run.view, snapshot=snapshot)
    assert [command.bandwidth for command in told(run, START + 30, 1)] == caps


def test_a_cap_that_could_not_be_set_is_set_again() -> None:
    run = linked(move(1, "a", "h1", "h2"), move(2, "b", "h1", "h4"), a="h1", b="h1")
    begun(run, 1, 2)
    run.ended(1)
    run.located(1, P.ABSENT, P.RUNNING)
    assert len(told(run, START + 20, 2)) == 1
    run.feed(Tuned(2, "bandwidth", "h1: no migration of it transfers memory now"))
    assert len(told(run, START + 30, 2)) == 1


def test_a_migration_that_is_not_known_to_be_ours_is_not_told() -> None:
    run = linked(move(1, "a", "h1", "h2"), move(2, "b", "h1", "h4"), a="h1", b="h1")
    begun(run, 1, 2)
    run.ended(1)
    run.located(1, P.ABSENT, P.RUNNING)
    assert not of(SetBandwidth, run.feed(at=START + 20))


def test_no_link_carries_more_at_once_than_allowed() -> None:
    """a and b both cross the link between rack1 and the core; c does not."""
    limits = Limits(per_link=1)
    run = linked(
        move(1, "a", "h1", "h2"),
        move(2, "b", "h3", "h4"),
        move(3, "c", "h4", "h2"),
        limits=limits.model_copy(update={"per_host": 2}),
        a="h1",
        b="h3",
        c="h4",
    )
    asked = [command.vm for command in run.feed() if isinstance(command, Ask)]
    assert asked == ["a"]


@pytest.mark.parametrize("method", [Method.STORAGE, Method.OVERLAY])
def test_a_migration_with_disks_counts_as_several_and_may_go_alone(method: Method) -> None:
    heavy = replace(move(1, "a", "h1", "h2"), method=method)
    run = linked(heavy, move(2, "b", "h3", "h4"), limits=Limits(per_site=4), a="h1", b="h3")
    assert [c.vm for c in run.feed() if isinstance(c, Ask)] == ["a"]
    light = linked(move(1, "b", "h3", "h4"), replace(heavy, number=2), a="h1", b="h3")
    light.view = replace(
        light.view, policy=POLICY.model_copy(update={"limits": Limits(per_site=4)})
    )
    assert [c.vm for c in light.feed() if isinstance(c, Ask)] == ["b"]


def test_one_with_disks_that_runs_goes_on_counting_as_several() -> None:
    """Dies when it does so only in the moment in which it starts."""
    heavy = replace(move(1, "a", "h1", "h2"), method=Method.STORAGE)
    run = linked(heavy, move(2, "b", "h3", "h4"), limits=Limits(per_site=4), a="h1", b="h3")
    begun(run, 1)
    run.feed(at=START + 1)
    assert [c.vm for c in run.commands if isinstance(c, Ask)] == ["a"]


def test_a_slow_migration_holds_back_only_what_waits_for_it() -> None:
    """Dies when moves start in batches: 3 goes on although 1 has not ended."""
    run = linked(
        move(1, "a", "h1", "h2"),
        move(2, "b", "h3", "h4"),
        move(3, "c", "h3", "h4", 2),
        move(4, "d", "h1", "h4", 1),
        a="h1",
        b="h3",
        c="h3",
        d="h1",
    )
    begun(run, 1, 2)
    run.ended(2)
    run.located(2, P.ABSENT, P.RUNNING)
    run.feed()
    stages = [run.stage(number) for number in (1, 2, 3, 4)]
    assert stages == [Stage.RUNNING, Stage.DONE, Stage.CHECKING, Stage.WAITING]
