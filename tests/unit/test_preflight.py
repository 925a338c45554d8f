"""What both hosts' facts say against a migration, just before it starts."""

from dataclasses import replace
from typing import Any

import pytest

from balancerd.core.executing.execution import Stage
from balancerd.core.executing.executor import INTEND_AGAIN
from balancerd.core.executing.messages import Ask, Conclude, EndPlan, Intend, Intended, Located
from balancerd.core.executing.preflight import objection
from balancerd.core.model import Method
from balancerd.core.observation import (
    Base,
    Image,
    JobReport,
    Location,
    Overlays,
    Pages,
    Preflight,
    Presence,
    Side,
)
from balancerd.core.outcome import Against, Outcome
from balancerd.core.units import GIB, MIB
from tests.executions import START, Run, move
from tests.sites import policy

SOURCE = Side("h1", "", "uuid-1", 11_003_000, 10_000_002, 8 * GIB)
TARGET = Side("h2", "", "uuid-2", 11_003_000, 10_000_002, 8 * GIB)
CLEAR = Preflight(
    *("a", START, SOURCE, TARGET),
    name_free=True,
    uuid_free=True,
    cpu_comparable=True,
    image_locks=True,
)


def objects(method: Method = Method.PRE_COPY, **changes: Any) -> str:
    """What is said against a VM of 4 GiB; changes of `target` are of that side."""
    target = replace(TARGET, **changes.pop("target", {}))
    return objection(replace(CLEAR, target=target, **changes), method, 4.0 * GIB, policy())


def test_nothing_is_said_against_a_clear_way_nor_for_want_of_knowledge() -> None:
    assert objects() == ""
    assert (
        objection(Preflight("a", START, Side("h1"), Side("h2")), Method.PRE_COPY, 1.0, policy())
        == ""
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"target": {"error": "no route"}}, "h2 does not answer: no route"),
        ({"target": {"uuid": "uuid-1"}}, "one machine"),
        ({"name_free": False}, "this name"),
        ({"uuid_free": False}, "this UUID"),
        ({"absent_disks": ("/srv/a",)}, "has not got /srv/a"),
        ({"stranded": ("/dev/sdb",)}, "only h1 has /dev/sdb"),
        ({"unmade": ("/srv/a",)}, "h2 has no storage pool"),
        ({"occupied": ("/srv/a",)}, "h2 has a file /srv/a already"),
        ({"cpu_comparable": False}, "CPU of h2"),
        ({"skew": 90.0}, "the clock of h2 is 1m30s ahead of that of h1"),
        ({"skew": -90.0}, "the clock of h2 is 1m30s behind that of h1"),
        ({"target": {"hypervisor": 9_002_000}}, "QEMU of h2 is older"),
        ({"target": {"libvirt": 10_000_000}}, "libvirt of h2 is older"),
        ({"target": {"memory_free": 3 * GIB}}, "3.0 GiB of memory free"),
    ],
)
def test_each_fact_that_is_known_to_be_wrong_is_a_reason_of_its_own(
    changes: dict[str, Any], words: str
) -> None:
    """Dies if any of them is left out."""
    assert words in objects(**changes)


def test_versions_that_are_newer_or_not_told_are_no_reason() -> None:
    for version in (None, 12_000_000, 11_000_000):
        assert objects(target={"libvirt": version}) == ""
    for version in (None, 11_000_000, 10_000_000):
        assert objects(target={"hypervisor": version}) == ""


def test_huge_pages_are_counted_apart_from_other_memory() -> None:
    """Dies if too few huge pages are passed over, or if other memory has to be free as well."""
    short, enough = Pages(2 * MIB, 4 * GIB, 3 * GIB), Pages(GIB, 4 * GIB, 4 * GIB)
    said = objects(pages=(short,))
    assert said == "h2 has 3.0 GiB of huge pages of 2.0 MiB free, the VM needs 4.0 GiB"
    assert objects(pages=(enough,), target={"memory_free": GIB}) == ""
    assert "huge pages free" in objects(pages=(replace(short, size=0),))


BASE = Image("qcow2", 20 * GIB, 2 * GIB, 1_700_000_000, "", "digest")
SAME = Overlays(bases=(Base("/srv/base", BASE, BASE),))


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (None, "h1 and h2 do not tell"),
        (replace(SAME, writers=("b on h2",)), "written to by b on h2"),
        (Overlays(bases=(Base("/srv/base", BASE, None),)), "h2 tells nothing of /srv/base"),
        (Overlays(bases=(Base("/srv/base", None, BASE),)), "h1 tells nothing of /srv/base"),
    ],
)
def test_an_overlay_stays_where_anything_speaks_against_its_base_or_is_not_known(
    told: Overlays | None, words: str
) -> None:
    """Dies if want of knowledge is passed over as it is elsewhere."""
    assert words in objects(Method.OVERLAY, overlays=told)
    assert objects(Method.OVERLAY, overlays=SAME) == ""
    assert objects(Method.STORAGE, overlays=told) == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "raw"}, "is raw on h2, but qcow2 on h1"),
        ({"capacity": GIB}, "holds a disk of 1073741824 bytes on h2"),
        ({"length": 7}, "has 7 bytes on h2, but 2147483648 on h1"),
        ({"backing": "/srv/older"}, "lies on '/srv/older' on h2, but on '' on h1"),
        ({"samples": "other"}, "holds other data on h2 than on h1"),
        ({"changed": 1_700_000_001}, "not changed last at the same time on h2 as on h1"),
    ],
)
def test_bases_have_to_be_the_same_in_all_that_their_hosts_tell(
    change: dict[str, Any], words: str
) -> None:
    """Dies if any of it is not compared."""
    other = Overlays(bases=(Base("/srv/base", BASE, replace(BASE, **change)),))
    said = objects(Method.OVERLAY, overlays=other)
    assert said.startswith("/srv/base, which its disk lies on, ")
    assert words in said


def test_a_vm_that_is_shut_off_needs_neither_memory_nor_a_cpu() -> None:
    assert objects(Method.COLD, cpu_comparable=False, target={"memory_free": 0}) == ""


def test_disks_that_nothing_locks_are_a_reason_only_where_the_policy_says_so() -> None:
    assert objects(image_locks=None) == ""
    strict = policy(methods={"unlocked": "refuse"})
    found = objection(replace(CLEAR, image_locks=None), Method.PRE_COPY, 1.0, strict)
    assert "lock" in found
    assert objection(CLEAR, Method.PRE_COPY, 1.0, strict) == ""


@pytest.mark.parametrize(
    ("changes", "method", "words"),
    [
        ({}, Method.POST_COPY, "post-copy"),
        ({"persistent": False}, Method.PRE_COPY, "not defined on its source"),
    ],
)
def test_what_nothing_locks_is_not_moved_where_it_cannot_be_handed_over(
    changes: dict[str, Any], method: Method, words: str
) -> None:
    """Dies if such a VM is started like any other."""
    assert words in objects(method, image_locks=None, **changes)
    assert objects(method, **changes) == ""
    plain = policy(methods={"unlocked": "plain"})
    assert objection(replace(CLEAR, image_locks=None, **changes), method, 1.0, plain) == ""


def test_a_move_is_dropped_for_what_its_hosts_say_and_that_is_written_down() -> None:
    """Dies if the facts are asked for and passed over, or if they are forgotten."""
    run = Run(move(1, "a", "h1", "h2"), a="h1")
    (ask,) = run.feed()
    assert isinstance(ask, Ask)
    assert ask.method is Method.PRE_COPY
    where = Location("a", START, {"h1": Presence.RUNNING, "h2": Presence.ABSENT})
    commands = run.feed(Located(1, where, replace(CLEAR, cpu_comparable=False)))
    assert [type(command) for command in commands] == [Intend]
    conclude, end = run.feed(Intended(1, 7))
    assert isinstance(conclude, Conclude)
    assert conclude.conclusion.intent == 7
    assert conclude.conclusion.outcome is Outcome.OBJECTED
    assert "CPU of h2" in conclude.conclusion.detail
    assert isinstance(end, EndPlan)
    assert run.stage() is Stage.DROPPED


@pytest.mark.parametrize("target", [Presence.CRASHED, Presence.PAUSED, Presence.INCOMING])
def test_what_the_target_has_of_the_vm_is_written_down_as_an_objection(target: Presence) -> None:
    """Nothing that is planned by shows it. Dies if the move is dropped, and planned again at once,
    cycle by cycle for as long as it stays like this."""
    run = Run(move(1, "a", "h1", "h2"), a="h1")
    run.feed()
    run.located(1, Presence.RUNNING, target)
    run.feed(Intended(1, 7))
    assert run.outcome() is Outcome.OBJECTED
    assert run.execution.tasks[1].detail == f"the target says {target.value}"


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (Presence.RUNNING, Presence.UNREACHABLE),
        (Presence.PAUSED, Presence.ABSENT),
        (Presence.PAUSED, Presence.CRASHED),
    ],
)
def test_what_the_next_look_shows_is_no_objection(source: Presence, target: Presence) -> None:
    run = Run(move(1, "a", "h1", "h2"), a="h1")
    run.feed()
    run.located(1, source, target)
    assert run.stage() is Stage.DROPPED
    assert run.outcome() is None


def test_an_objection_does_not_stop_the_rest_of_a_plan() -> None:
    run = Run(move(1, "a", "h1", "h2"), move(2, "b", "h3", "h4"), a="h1", b="h3")
    run.feed()
    where = Location("a", START, {"h1": Presence.RUNNING, "h2": Presence.ABSENT})
    run.feed(Located(1, where, replace(CLEAR, cpu_comparable=False)), Intended(1, 7))
    run.feed(Intended(1, 7))
    run.located(2, Presence.RUNNING, Presence.ABSENT)
    run.feed(Intended(2, 8))
    assert (run.stage(1), run.stage(2)) == (Stage.DROPPED, Stage.RUNNING)


def test_certificates_that_are_missing_are_an_objection_and_no_failure() -> None:
    """Dies if the plan stops for it, or if it counts as a failure of VM, pair or host."""
    run = Run(move(1, "a", "h1", "h2"), move(2, "b", "h3", "h4"), a="h1", b="h3")
    run.started(1)
    run.feed(_refused())
    run.feed(at=START + 1)
    run.located(1, Presence.RUNNING, Presence.ABSENT)
    assert run.outcome() is Outcome.OBJECTED
    (conclude,) = (one for one in run.commands if isinstance(one, Conclude))
    assert conclude.conclusion.against is Against.TARGET
    assert run.stage(1) is Stage.DROPPED
    assert run.stage(2) is not Stage.DROPPED


@pytest.mark.parametrize(
    ("source", "target", "outcome"),
    [(Presence.ABSENT, Presence.RUNNING, Outcome.DONE), (Presence.RUNNING, Presence.RUNNING, None)],
)
def test_a_refusal_is_believed_only_where_both_hosts_confirm_it(
    source: Presence, target: Presence, outcome: Outcome | None
) -> None:
    """Dies if the words of an error decide where the VM is."""
    run = Run(move(1, "a", "h1", "h2"), a="h1")
    run.started(1)
    run.feed(_refused())
    run.feed(at=START + 1)
    run.located(1, source, target)
    assert run.outcome() is not Outcome.OBJECTED
    assert outcome is None or run.outcome() is outcome


def _refused() -> JobReport:
    said: dict[str, Any] = {"objection": "no certificates", "against": Against.TARGET}
    return JobReport("a", "h1", "h2", START, ended=True, error="no", error_code=1, **said)


def test_a_pause_between_an_objection_and_its_record_forgets_the_objection() -> None:
    """Dies if the move starts later on what was said before the pause, or never."""
    run = Run(move(1, "a", "h1", "h2"), a="h1")
    run.feed()
    where = Location("a", START, {"h1": Presence.RUNNING, "h2": Presence.ABSENT})
    run.feed(Located(1, where, replace(CLEAR, cpu_comparable=False)))
    run.feed(Intended(1, None))
    run.feed(at=START + INTEND_AGAIN)
    run.started()
    assert run.stage() is Stage.RUNNING
