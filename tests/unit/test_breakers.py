"""Breakers as a table: what a past of successes and failures leaves open."""

from dataclasses import replace

import pytest

from balancerd.core.executing.execution import Stage
from balancerd.core.executing.messages import Ask, Intended
from balancerd.core.model import Link
from balancerd.core.outcome import Outcome
from balancerd.core.past.breakers import RULES, Breaker, Breakers, Scope, State, breaker, breakers
from balancerd.core.past.history import History, PastMove
from balancerd.core.plan import Move
from balancerd.core.policies.limits import Limits
from balancerd.core.units import GIB, HOUR
from tests.executions import POLICY, START, P, Run, move, of

LIMITS = Limits(backoff=10.0, cooldown=1.0, cooldown_max=1000.0)
LETTERS = {
    "+": Outcome.DONE,
    "-": Outcome.FAILED,
    "a": Outcome.ABORTED,
    "n": Outcome.NOT_STARTED,
}


def past(letters: str, every: float = 1.0) -> list[PastMove]:
    """One move each second, oldest first, the newest at 0."""
    newest = len(letters) - 1
    return [
        PastMove("v", "h1", "h2", every * (index - newest), LETTERS[letter])
        for index, letter in enumerate(letters)
    ]


@pytest.mark.parametrize(
    ("scope", "letters", "until"),
    [
        (Scope.PAIR, "", 0),
        (Scope.PAIR, "+", 0),
        (Scope.PAIR, "-", 10),
        (Scope.PAIR, "--", 20),
        (Scope.PAIR, "--+", 0),
        (Scope.PAIR, "--+-", 10),
        (Scope.PAIR, "a", 10),
        (Scope.PAIR, "n", 10),
        (Scope.PAIR, "----------", 1000),
        (Scope.VM, "n", 0),
        (Scope.VM, "nn", 10),
        (Scope.VM, "nnn", 20),
        (Scope.VM, "nn+n", 0),
        (Scope.HOST, "--", 0),
        (Scope.HOST, "---", 10),
        (Scope.HOST, "-----", 40),
        (Scope.HOST, "-+--", 0),
        (Scope.HOST, "aaaa", 0),
        (Scope.HOST, "nnn", 10),
        (Scope.SITE, "----", 0),
        (Scope.SITE, "-----", 10),
        (Scope.SITE, "-n-n-n", 20),
    ],
)
def test_so_many_failures_in_a_row_open_a_breaker_for_so_long(
    scope: Scope, letters: str, until: float
) -> None:
    found = breaker(scope, past(letters), LIMITS, 0.5)
    assert (found.state, found.until) == ((State.OPEN if until else State.CLOSED), until)


@pytest.mark.parametrize("scope", list(Scope))
def test_after_its_rest_a_breaker_is_half_open_and_at_last_forgets(scope: Scope) -> None:
    rule = RULES[scope]
    failed = past("-" * rule.trips)
    assert breaker(scope, failed, LIMITS, 9.9).state is State.OPEN
    assert breaker(scope, failed, LIMITS, 10.0).state is State.HALF_OPEN
    assert breaker(scope, failed, LIMITS, 10.0 + rule.memory).state is State.CLOSED


def test_failures_of_long_ago_do_not_count_for_a_host() -> None:
    """Dies without a memory: three failures in a year would close a quiet host."""
    assert breaker(Scope.HOST, past("---", every=HOUR), LIMITS, 1.0).state is State.CLOSED


def test_a_failure_counts_for_both_of_its_hosts_and_for_nobody_else() -> None:
    moves = tuple(replace(m, vm=f"v{n}", target=f"h{n + 2}") for n, m in enumerate(past("---")))
    found = breakers(History(moves=moves), LIMITS, 1.0)
    assert set(found.hosts) == {"h1"}
    assert set(found.pairs) == {("h1", "h2"), ("h1", "h3"), ("h1", "h4")}
    assert not found.vms
    assert found.site.state is State.CLOSED


def after_failures(*actions: Move, ago: float, **placement: str) -> Run:
    """A plan on a site where five migrations of others failed in a row, so many seconds ago."""
    run = Run(*actions, policy=POLICY, **placement)
    moves = tuple(
        PastMove(f"x{n}", f"g{n}", f"k{n}", START - ago, Outcome.FAILED) for n in range(5)
    )
    run.view = replace(run.view, history=History(moves=moves))
    return run


def test_nothing_starts_while_the_sites_breaker_is_open() -> None:
    run = after_failures(move(1, "a", "h1", "h2"), ago=10.0, a="h1")
    assert run.feed() == ()
    assert run.stage() is Stage.WAITING


def test_half_open_lets_the_smallest_through_alone() -> None:
    """Dies when all start again at once: five more would fail on a site that is still broken."""
    big = replace(move(1, "a", "h1", "h2"), bytes=10**10)
    small = replace(move(2, "b", "h3", "h4"), bytes=10**9)
    run = after_failures(big, small, ago=POLICY.limits.backoff + 1, a="h1", b="h3")
    (asked,) = of(Ask, run.feed())
    assert isinstance(asked, Ask)
    assert asked.vm == "b"
    run.located(2, P.RUNNING, P.ABSENT)
    run.feed(Intended(2, 7))
    assert run.stage(1) is Stage.WAITING
    well = PastMove("b", "h3", "h4", START, Outcome.DONE)
    history = History(moves=(*run.view.history.moves, well))
    run.view = replace(run.view, history=history)
    run.ended(2)
    run.located(2, P.ABSENT, P.RUNNING)
    run.feed()
    assert run.stage(1) is Stage.CHECKING


@pytest.mark.parametrize(("sent", "stage"), [(8, Stage.CHECKING), (10, Stage.DROPPED)])
def test_no_link_carries_more_in_a_day_than_its_budget(sent: int, stage: Stage) -> None:
    """GiB that a migration sent over the link between h1 and the core, today and last week."""
    limits = Limits(link_bytes_per_day=10 * GIB)
    run = Run(
        replace(move(1, "a", "h1", "h2"), bytes=GIB),
        a="h1",
        policy=POLICY.model_copy(update={"limits": limits}),
    )
    links = tuple(Link(name, "core", 1e9) for name in ("h1", "h2", "h3"))
    cluster = replace(run.view.snapshot.cluster, links=links)
    history = History(
        moves=(
            PastMove("x", "h1", "h3", START - 30 * HOUR, Outcome.DONE, 9 * GIB),
            PastMove("x", "h1", "h3", START - HOUR, Outcome.DONE, sent * GIB),
        )
    )
    snapshot = replace(run.view.snapshot, cluster=cluster)
    run.view = replace(run.view, snapshot=snapshot, history=history)
    run.feed()
    assert run.stage() is stage


def test_moves_that_begin_at_once_share_a_links_budget() -> None:
    """Dies when only the history counts: each of two finds room for itself."""
    limits = POLICY.limits.model_copy(update={"link_bytes_per_day": 3 * GIB, "per_host": 4})
    moves = [
        replace(move(n, vm, "h1", f"h{n + 1}"), bytes=2 * GIB) for n, vm in ((1, "a"), (2, "b"))
    ]
    run = Run(*moves, a="h1", b="h1", policy=POLICY.model_copy(update={"limits": limits}))
    links = tuple(Link(name, "core", 1e9) for name in ("h1", "h2", "h3"))
    cluster = replace(run.view.snapshot.cluster, links=links)
    run.view = replace(run.view, snapshot=replace(run.view.snapshot, cluster=cluster))
    run.feed()
    assert (run.stage(1), run.stage(2)) == (Stage.CHECKING, Stage.DROPPED)


SHUT = Breaker(State.OPEN, 1, START)


@pytest.mark.parametrize(
    "found",
    [
        Breakers(vms={"v": SHUT}),
        Breakers(pairs={("a", "b"): SHUT}),
        Breakers(hosts={"a": SHUT}),
        Breakers(hosts={"b": SHUT}),
    ],
)
def test_a_move_passes_the_breakers_of_its_vm_its_pair_and_both_hosts(found: Breakers) -> None:
    """Dies when any one of them is not asked."""
    assert found.of("v", "a", "b") == (SHUT,)
    assert found.of("w", "c", "d") == ()
