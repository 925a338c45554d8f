"""What is learned from past migrations: error that shrinks, intervals that hold."""

from math import exp, log

import numpy as np
import pytest

from balancerd.core.lessons import NOMINAL, Lesson, Lessons

METHOD = "pre-copy"


def lesson(vm: str, ratio: float, link: str = "l") -> Lesson:
    return Lesson(vm, METHOD, link, {"seconds": (10.0, 10.0 * ratio)})


def taught(*lessons: Lesson) -> Lessons:
    known = Lessons()
    for one in lessons:
        known = known.after(one)
    return known


def test_who_knows_nothing_leaves_the_model_alone_and_says_a_factor_of_two() -> None:
    found = Lessons().correction("seconds", METHOD, "l", "v")
    assert found.ratio == 1.0
    assert found.factor == pytest.approx(2.0)


def test_what_all_have_in_common_is_expected_of_a_stranger_too() -> None:
    known = taught(*(lesson(f"v{n}", 1.5, f"l{n % 3}") for n in range(40)))
    assert known.correction("seconds", METHOD, "new", "stranger").ratio == pytest.approx(1.5, 0.05)
    assert known.correction("bytes", METHOD, "l1", "v1").ratio == 1.0
    assert known.correction("seconds", "cold", "new", "stranger").ratio == 1.0


def test_what_is_particular_to_a_vm_is_not_expected_of_others() -> None:
    """Dies if the VM's part is not kept apart from what all have in common."""
    usual = [lesson(f"v{n}", 1.0) for n in range(20)]
    slow = [lesson("slow", 2.0)] * 5
    known = taught(*usual, *slow, *usual)
    assert known.correction("seconds", METHOD, "l", "slow").ratio > 1.5
    assert known.correction("seconds", METHOD, "l", "v1").ratio == pytest.approx(1.0, abs=0.15)


def test_one_case_is_believed_by_half_at_most() -> None:
    """Dies if a mean is not shrunk by how little is known."""
    known = taught(*(lesson(f"v{n}", 1.0) for n in range(30)), lesson("odd", 3.0))
    assert 1.0 < known.correction("seconds", METHOD, "l", "odd").ratio < 3.0**0.75


def test_figures_that_are_not_positive_teach_nothing() -> None:
    odd = Lesson("v", METHOD, "l", {"seconds": (0.0, 5.0), "downtime": (0.1, 0.0)})
    nan = Lesson("v", METHOD, "l", {"seconds": (float("nan"), 5.0), "bytes": (1.0, float("inf"))})
    assert taught(odd, nan) == Lessons()


def test_a_wild_outlier_moves_the_correction_by_a_bounded_step() -> None:
    known = taught(*(lesson("v", 1.0) for _ in range(10)), lesson("v", 1e6))
    assert known.correction("seconds", METHOD, "l", "v").ratio < exp(1.5)


@pytest.mark.parametrize("seed", range(4))
def test_errors_fall_and_intervals_hold_as_migrations_add_up(seed: int) -> None:
    """VMs, links and the site as a whole each differ from the model, and each migration by chance,
    now and then wildly. Dies if any part is not learned, or the width is not calibrated."""
    random = np.random.default_rng(seed)
    links, vms = random.normal(0.0, 0.2, 6), random.normal(0.0, 0.3, 40)
    known, errors, held, untaught = Lessons(), [], [], []
    for _ in range(800):
        link, vm = int(random.integers(6)), int(random.integers(40))
        actual = exp(0.3 + links[link] + vms[vm] + 0.05 * random.standard_t(3))
        found = known.correction("seconds", METHOD, f"l{link}", f"v{vm}")
        untaught.append(abs(log(actual)))
        errors.append(abs(log(actual / found.ratio)))
        held.append(errors[-1] <= log(found.factor))
        known = known.after(Lesson(f"v{vm}", METHOD, f"l{link}", {"seconds": (1.0, actual)}))
    last = np.median(errors[-200:])
    assert last < 0.75 * np.median(errors[:50])
    assert last < 0.5 * np.median(untaught)
    assert np.mean(held) == pytest.approx(NOMINAL, abs=0.03)
    assert known.correction("seconds", METHOD, "l0", "v0").factor < 1.5
