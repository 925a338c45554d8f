"""Answers to why, why not, and what waits for what."""

from dataclasses import replace

from balancerd.core.explain import as_dot, verify, why, why_not
from balancerd.core.history import History
from balancerd.core.model import PowerState
from tests.sites import NOW, changed, planned, policy, rule, site

HOT = "h1 10c 64G: a 4c 8G, b 3c 2G, c 2c 4G | h2 10c 64G: d 1c 4G | h3 10c 64G:"


def answer(vm: str, text: str = HOT, **changes: object) -> str:
    snapshot, rules = replace(site(text), **changes), policy()  # type: ignore[arg-type]
    return why(snapshot, rules, History(), NOW, planned(snapshot, rules), vm).sentence


def test_a_vm_that_moves_moves_for_a_reason() -> None:
    assert answer("b") == "b moves h1 > h3: h1: CPU 90%, mean 90% > 80%, unload to 70%"


def test_a_vm_that_stays_stays_for_a_reason() -> None:
    assert answer("d") == ("d stays on h2, and nothing asks for a move (idle, CPU 10% < 30%)")
    full = "h1 10c 64G: a 9c 8G | h2 10c 64G: b 6c 8G"
    assert answer("a", full) == (
        "a stays on h1: h2 refused it, CPU, 15.00 of at most 6.50 cores expected"
    )


def test_a_vm_that_cannot_be_moved_says_so() -> None:
    snapshot = changed(site(HOT), vm="b", host_devices=("gpu",))
    made = planned(snapshot, policy())
    found = why(snapshot, policy(), History(), NOW, made, "b")
    assert found.sentence == "b stays: host device, gpu"


def test_why_not_names_everything_in_the_way() -> None:
    snapshot = site("h1 10c 64G: a 4c 30G | h2 10c 64G: b 4c 30G, c 0c 1G")
    found = why_not(snapshot, policy("quiet", rule("apart", "a c")), History(), NOW, "a", "h2")
    assert found.sentence == "a may not go to h2: apart, memory, CPU, busy"
    assert found.refusals[1].detail == "61.0 GiB of at most 51.7 GiB"
    assert found.refusals[1].remedy == "free 9.3 GiB of memory on h2"


def test_why_not_where_nothing_is_in_the_way() -> None:
    assert why_not(site(HOT), policy(), History(), NOW, "d", "h3").sentence == (
        "nothing keeps d off h3"
    )
    assert why_not(site(HOT), policy(), History(), NOW, "d", "h9").sentence == (
        "there is no host h9"
    )


def test_a_plan_as_a_graph_shows_what_waits_for_what() -> None:
    snapshot = changed(
        site("h1 10c 64G: a 5c 8G, b 4c 2G | h2 10c 64G:"), host="h2", power=PowerState.OFF
    )
    assert as_dot(planned(snapshot, policy())).splitlines()[3:6] == [
        '  1 [label="1. wake h2"];',
        '  2 [label="2. b: h1 > h2"];',
        "  1 -> 2;",
    ]


def test_a_plan_spoilt_by_hand_is_not_verified() -> None:
    snapshot, rules = site(HOT), policy()
    made = planned(snapshot, rules)
    spoilt = replace(made, actions=(replace(made.moves[0], target="h1"),))
    assert verify(snapshot, rules, made).violations == ()
    assert verify(snapshot, rules, spoilt).violations == ("action 1: b stays on h1",)
