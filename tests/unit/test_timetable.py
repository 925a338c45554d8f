"""When migrations begin: within the limits, after what they wait for, and soon done."""

from collections.abc import Sequence
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancerd.core.ordering.timetable import Job, Slot, limit_of, timetable, waves
from balancerd.core.policies.limits import Limits

Jobs = list[tuple[Job, float]]  # with bytes


def limits(**changes: int) -> Limits:
    return Limits.model_validate({"per_site": 99, "per_host": 9, "per_link": 9} | changes)


def table(
    jobs: Jobs, rules: Limits, after: Sequence[Sequence[int]] | None = None, width: float = inf
) -> list[Slot]:
    """Slots of jobs whose seconds are bytes over rate; every link is `width` wide."""
    waits = after or [() for _ in jobs]
    return timetable(
        [job for job, _ in jobs], waits, rules, lambda _: width, lambda i, rate: jobs[i][1] / rate
    )


CAP = 100.0 * 2**20


def begins(slots: list[Slot]) -> list[float]:
    return [round(slot.begin, 6) for slot in slots]


def ends(slots: list[Slot]) -> float:
    return max(slot.begin + slot.seconds for slot in slots)


def test_what_nothing_forbids_begins_at_once() -> None:
    slots = table([(Job(0, 1), CAP), (Job(2, 3), CAP)], limits())
    assert begins(slots) == [0.0, 0.0]


def test_one_host_gives_one_after_the_other_in_the_plans_own_order() -> None:
    """Dies if the order is changed for nothing."""
    jobs = [(Job(0, 1), CAP), (Job(0, 2), 3 * CAP), (Job(0, 3), 2 * CAP)]
    assert begins(table(jobs, limits(per_host=1))) == [0.0, 1.0, 4.0]


def test_a_long_one_that_would_end_last_of_all_goes_first() -> None:
    jobs = [*((Job(2 * n, 2 * n + 1), CAP) for n in range(4)), (Job(8, 9), 3 * CAP)]
    slots = table(jobs, limits(per_site=2))
    assert slots[4].begin == 0.0
    assert ends(slots) == pytest.approx(4.0)


def test_hosts_that_give_as_much_take_turns() -> None:
    """Dies if the third host has to wait until the first two are empty: 9 s instead of 6."""
    jobs = [(Job(host, 10 + 4 * host + n), CAP) for host in range(3) for n in range(4)]
    assert ends(table(jobs, limits(per_site=2, per_host=1))) == pytest.approx(6.0)


def test_what_others_wait_for_goes_before_what_is_longer_itself() -> None:
    """Dies if a job's own time counts instead of the chain behind it."""
    jobs = [(Job(0, 1), 3 * CAP), (Job(0, 2), CAP), (Job(2, 3), 5 * CAP)]
    slots = table(jobs, limits(per_host=1), [(), (), (1,)])
    assert begins(slots) == [1.0, 0.0, 1.0]


def test_urgent_ones_go_first_however_short() -> None:
    """Dies if only the end of the plan counts."""
    jobs = [*((Job(2 * n, 2 * n + 1), CAP) for n in range(4)), (Job(8, 9), 3 * CAP)]
    jobs.append((Job(10, 11, urgent=True), CAP))
    slots = table(jobs, limits(per_site=2))
    assert (slots[4].begin, slots[5].begin) == (0.0, 0.0)


def test_a_slow_one_holds_back_only_what_needs_its_places() -> None:
    """Dies if jobs begin wave by wave."""
    jobs = [(Job(0, 1), 9 * CAP), *((Job(2, n), CAP) for n in (3, 4, 5))]
    assert begins(table(jobs, limits(per_host=1, per_site=2))) == [0.0, 0.0, 1.0, 2.0]


def test_a_link_takes_no_more_than_its_limit() -> None:
    """Dies without `per_link`."""
    jobs = [(Job(n, 10 + n, links=(7,)), CAP) for n in range(4)]
    assert sorted(begins(table(jobs, limits(per_link=2)))) == [0.0, 0.0, 1.0, 1.0]


def test_migrations_on_one_link_share_it() -> None:
    jobs = [(Job(n, 10 + n, links=(7,)), CAP) for n in range(2)]
    first, second = table(jobs, limits(), width=CAP)
    assert (first.rate, second.rate) == (CAP, CAP / 2)


def test_a_heavy_one_gets_no_more_of_a_link_than_a_light_one() -> None:
    """As `throttle` will divide it. Dies if a storage migration is foreseen to go faster."""
    jobs = [(Job(0, 10, links=(7,)), CAP), (Job(1, 11, links=(7,), weight=2), CAP)]
    assert table(jobs, limits(), width=CAP)[1].rate == CAP / 2
    assert table(jobs[::-1], limits(), width=CAP)[1].rate == CAP / 2


def test_what_has_ended_leaves_its_share_to_others() -> None:
    jobs = [(Job(n, 10 + n, links=(7,)), CAP) for n in range(3)]
    assert [slot.rate for slot in table(jobs, limits(per_link=1), width=CAP)] == [CAP] * 3


def test_a_heavy_one_takes_the_room_of_several_and_an_empty_place_whole() -> None:
    heavy = (Job(0, 1, weight=4), CAP)
    light = [(Job(2 * n, 2 * n + 1), CAP) for n in (1, 2)]
    assert begins(table([heavy, *light], limits(per_site=4))) == [0.0, 1.0, 1.0]
    assert begins(table([heavy, *light], limits(per_site=3))) == [0.0, 1.0, 1.0]


@st.composite
def plans(draw: st.DrawFn) -> tuple[Jobs, list[list[int]], Limits]:
    """Jobs over a few hosts and links, with waits for earlier ones."""
    hosts, links = st.integers(0, 3), st.lists(st.integers(0, 2), max_size=2, unique=True)
    jobs: Jobs = []
    after: list[list[int]] = []
    for index in range(draw(st.integers(1, 14))):
        job = Job(
            draw(hosts),
            4 + draw(hosts),
            tuple(draw(links)),
            draw(st.sampled_from([1, 1, 1, 3])),
            draw(st.booleans()),
        )
        jobs.append((job, draw(st.integers(1, 5)) * CAP))
        earlier = st.lists(st.sampled_from(range(index)), max_size=2) if index else st.just([])
        after.append(draw(earlier))
    few = st.integers(1, 3)
    rules = Limits(per_site=draw(few), per_host=draw(few), per_link=draw(few))
    return jobs, after, rules


@settings(deadline=None)
@given(plans())
def test_at_no_moment_is_a_limit_broken_or_a_wait_cut_short(
    plan: tuple[Jobs, list[list[int]], Limits],
) -> None:
    """Dies if a place is not given back, or taken twice, or a job begins with one wait left."""
    jobs, after, rules = plan
    slots = table(jobs, rules, after, width=CAP)
    assert len(slots) == len(jobs)
    for index, slot in enumerate(slots):
        for other in after[index]:
            assert slots[other].begin + slots[other].seconds <= slot.begin + 1e-6
        here = [
            jobs[n][0]
            for n, s in enumerate(slots)
            if s.begin <= slot.begin + 1e-9 < s.begin + s.seconds - 1e-6
        ]
        for place in jobs[index][0].places():
            weights = [job.weight for job in here if place in job.places()]
            assert len(weights) == 1 or sum(weights) <= limit_of(place, rules)


@settings(deadline=None)
@given(plans())
def test_a_job_begins_when_one_ends_that_kept_it_from_beginning(
    plan: tuple[Jobs, list[list[int]], Limits],
) -> None:
    """Dies if who waits for a place is not looked at again when it is given back."""
    jobs, after, rules = plan
    slots = table(jobs, rules, after)
    for index, slot in enumerate(slots):
        reasons = [0.0] + [
            s.begin + s.seconds
            for n, s in enumerate(slots)
            if n in after[index] or set(jobs[n][0].places()) & set(jobs[index][0].places())
        ]
        assert any(abs(slot.begin - reason) < 1e-6 for reason in reasons)


@settings(deadline=None)
@given(plans())
def test_waves_keep_the_limits_and_the_waits(plan: tuple[Jobs, list[list[int]], Limits]) -> None:
    jobs, after, rules = plan
    found = waves([job for job, _ in jobs], after, rules)
    for index, waits in enumerate(after):
        assert all(found[index] > found[other] for other in waits)
    for wave in set(found):
        together = [job for (job, _), number in zip(jobs, found, strict=True) if number == wave]
        for place in {place for job in together for place in job.places()}:
            weights = [job.weight for job in together if place in job.places()]
            assert len(weights) == 1 or sum(weights) <= limit_of(place, rules)


def test_thousands_of_migrations_are_laid_out_in_a_moment() -> None:
    """Dies (of patience) if every end looks at every job that waits, or a wave is searched for
    from the first one on."""
    jobs = [Job(n % 50, 50 + n % 997, links=(n % 25,)) for n in range(20_000)]
    rules = limits(per_site=8, per_host=1, per_link=2)
    slots = timetable(jobs, [()] * len(jobs), rules, lambda _: 1e9, lambda i, _: 1.0 + i % 7)
    assert ends(slots) == pytest.approx(sum(1.0 + i % 7 for i in range(20_000)) / 8, rel=0.01)
    assert max(waves(jobs, [()] * len(jobs), rules)) == 2500
