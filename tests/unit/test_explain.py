"""Answers to why, why not, and what waits for what."""

import re
from collections.abc import Callable
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from balancerd.core.explain import (
    Answer,
    Decision,
    as_dot,
    as_svg,
    graph_of_hosts,
    graph_of_moves,
    why,
    why_not,
)
from balancerd.core.explain.graph import Graph
from balancerd.core.model import PowerState, Snapshot, VMState
from balancerd.core.outcome import Outcome
from balancerd.core.past.history import History, PastMove
from balancerd.core.plan import Plan
from balancerd.core.policies.policy import Policy
from tests.sites import NOW, changed, planned, policy, rule, site, under_way

HOT = "h1 10c 64G: a 4c 8G, b 3c 2G, c 2c 4G | h2 10c 64G: d 1c 4G | h3 10c 64G:"
FULL = "h1 10c 64G: a 2c 20G | h2 10c 64G: b 1c 20G, c 1c 10G, d 1c 15G"


def decided(
    snapshot: Snapshot, rules: Policy | None = None, history: History | None = None
) -> Decision:
    rules, history = rules or policy(), history or History()
    return Decision(snapshot, rules, history, planned(snapshot, rules, history))


def about(answer: Answer, what: str) -> str:
    return next(fact.text for fact in answer.facts if fact.about == what)


def test_a_vm_that_moves_moves_for_a_reason() -> None:
    found = why(decided(site(HOT)), "b")
    assert found.sentence == "b moves h1 > h3: h1: CPU 90%, mean 90% > 80%, unload to 70%"
    assert [move.vm for move in found.moves] == ["b"]
    assert about(found, "source").startswith("h1 is overloaded (CPU 90%, mean 90% > 80%)")
    assert about(found, "after") == "the plan leaves h3 at CPU 30%, memory 3%"
    assert about(found, "cost").startswith("move 1 in wave 1, pre-copy: 2.2 GiB in 22.")


def test_a_vm_that_stays_stays_for_a_reason() -> None:
    found = why(decided(site(HOT)), "d")
    assert found.sentence == "d stays on h2, and nothing asks for a move (idle, CPU 10% < 30%)"
    assert about(found, "VM") == (
        "d: 1.00 cores now, 1.00 in the mean; 1.00 ± 0.00 expected, 4.0 GiB of memory"
    )
    full = "h1 10c 64G: a 9c 8G | h2 10c 64G: b 6c 8G"
    assert why(decided(site(full)), "a").sentence == (
        "a stays on h1: h2 refused it, CPU, 15.00 of at most 6.50 cores expected"
    )


def test_a_vm_that_stays_on_an_overloaded_host_is_not_said_to_be_well_off() -> None:
    """Dies when one says that nothing asks for a move where others are moved off its host."""
    assert why(decided(site(HOT)), "c").sentence == (
        "c stays on h1, which is overloaded (CPU 90%, mean 90% > 80%): others move off it instead"
    )


def test_a_vm_that_stays_is_told_what_it_could_have() -> None:
    found = why(decided(site(HOT), policy("spread", limits={"gain": 0.9})), "d")
    assert about(found, "targets") == "1 of 2 other hosts would take it; the others: CPU 1"
    assert re.fullmatch(
        r"alone on h3 it would make the score (\S+) -> \1; a plan has to better it by 90%",
        about(found, "gain"),
    )
    gain = next(fact for fact in found.facts if fact.about == "gain")
    assert gain.numbers["gain_asked"] == 0.9


@pytest.mark.parametrize("objective", ["pack", "quiet", "drain"])
def test_no_gain_in_score_is_asked_where_the_objective_does_not_go_by_it(objective: str) -> None:
    found = why(decided(site(HOT), policy(objective, limits={"gain": 0.9})), "d")
    assert about(found, "gain").endswith(f"; {objective} does not go by it")


def test_a_vm_that_cannot_be_moved_says_so() -> None:
    found = why(decided(changed(site(HOT), vm="b", host_devices=("gpu",))), "b")
    assert found.sentence == "b stays: host device, gpu"


def test_a_vm_in_cool_down_says_since_when_and_how_long() -> None:
    past = History((PastMove("b", "h2", "h1", NOW - 600, Outcome.DONE),))
    found = why(decided(site(HOT), history=past), "b")
    assert found.sentence.startswith("b stays: cool-down, rests until 1970-01-12T14:06:40+00:00")
    assert about(found, "cool-down") == (
        "last moved at 1970-01-12T13:36:40+00:00, h2 > h1, done; "
        "rests until 1970-01-12T14:06:40+00:00"
    )


def test_the_rules_about_a_vm_are_named() -> None:
    rules = policy(
        "quiet", rule("pin", "d e*", "h2 h3"), rule("apart", "d a"), rule("pin", "x", "h1")
    )
    tagged = changed(site(HOT), vm="d", tags={"apart": "db"})
    found = why(decided(tagged, rules), "d")
    assert [fact.text for fact in found.facts if fact.about == "rule"] == [
        "pin pin d e*: h2, h3",
        "apart apart d a, per host",
        'apart tag apart="db", per host',
    ]


def test_a_vm_that_does_not_run_is_no_question_of_balance() -> None:
    decision = decided(changed(site(HOT), vm="d", state=VMState.SHUTOFF))
    assert why(decision, "d").sentence == "d does not run on a host of this site"
    assert why_not(decision, "d", "h3").sentence == "d does not run on a host of this site"


def test_why_not_names_everything_in_the_way() -> None:
    snapshot = site("h1 10c 64G: a 4c 30G | h2 10c 64G: b 4c 30G, c 0c 1G")
    found = why_not(decided(snapshot, policy("quiet", rule("apart", "a c"))), "a", "h2")
    assert found.sentence == "a may not go to h2: apart, memory, CPU, busy"
    assert found.refusals[1].detail == "61.0 GiB of at most 51.7 GiB"
    assert found.refusals[1].remedy == "free 9.3 GiB of memory on h2"


def test_why_not_where_nothing_is_in_the_way() -> None:
    found = why_not(decided(site(HOT)), "d", "h3")
    assert found.sentence == "nothing keeps d off h3"
    assert found.change == ()
    assert about(found, "gain").startswith("alone on h3 it would make the score")
    assert why_not(decided(site(HOT)), "d", "h2").sentence == "d is on h2 already"


def test_the_smallest_change_is_the_lightest_vm_that_is_enough() -> None:
    """Dies when the largest is taken, or when any is taken without trying."""
    found = why_not(decided(site(FULL)), "a", "h2")
    assert found.change == ("move d (15.0 GiB) off h2",)
    found = why_not(decided(site(FULL.replace("a 2c 20G", "a 2c 30G"))), "a", "h2")
    assert sorted(found.change) == ["move c (10.0 GiB) off h2", "move d (15.0 GiB) off h2"]


def test_a_vm_whose_leaving_does_not_help_stays() -> None:
    """Dies when the largest are taken as they come: b is, but not of memory."""
    text = "h1 10c 64G: a 0c 40G | h2 10c 64G: b 6c 2G, c 0c 20G, d 0c 15G"
    found = why_not(decided(site(text)), "a", "h2")
    assert sorted(found.change) == ["move c (20.0 GiB) off h2", "move d (15.0 GiB) off h2"]


def test_what_moving_others_cannot_help_needs_its_own_remedy() -> None:
    snapshot = changed(site(FULL), host="h2", power=PowerState.OFF)
    snapshot = replace(snapshot, cluster=replace(snapshot.cluster, placement={"a": "h1"}))
    past = History((PastMove("a", "h3", "h1", NOW - 600, Outcome.DONE),))
    found = why_not(decided(snapshot, history=past), "a", "h2")
    assert [refusal.constraint for refusal in found.refusals] == ["cool-down", "host closed"]
    assert found.change[0].startswith("lift cool-down: rests until 1970-01-12T14:06:40")
    assert found.change[1] == "wake h2"


def test_a_vm_too_large_for_a_host_is_not_told_to_evict_everybody() -> None:
    """Only what helps is moved away: not even an empty h2 has 60 GiB to land in."""
    found = why_not(decided(site(FULL.replace("a 2c 20G", "a 2c 60G"))), "a", "h2")
    assert found.change == (
        "h2 is too small, even without all VMs that can leave it: "
        "memory, 60.0 GiB of at most 51.7 GiB",
    )


def test_a_vm_that_has_to_stay_is_not_asked_to_make_room() -> None:
    snapshot = changed(site(FULL), vm="d", host_devices=("gpu",))
    found = why_not(decided(snapshot), "a", "h2")
    assert found.change == ("move b (20.0 GiB) off h2",)
    snapshot = under_way(site(FULL + " | h3 10c 64G:"), d="h3")
    assert why_not(decided(snapshot), "a", "h2").change == ("move b (20.0 GiB) off h2",)


def test_a_plan_as_a_graph_shows_what_waits_for_what() -> None:
    snapshot = changed(
        site("h1 10c 64G: a 5c 8G, b 4c 2G | h2 10c 64G:"), host="h2", power=PowerState.OFF
    )
    slept = History(put_to_sleep={"h2": NOW - 3600})
    drawn = as_dot(graph_of_moves(planned(snapshot, policy(), slept))).splitlines()
    assert drawn[3].startswith('  "1" [label="1. wake h2", tooltip=')
    assert drawn[4].startswith('  "2" [label="2. b\\nh1 > h2", tooltip=')
    assert drawn[5:] == [
        '  "1" -> "2";',
        '  { rank=same; "1"; }',
        '  { rank=same; "2"; }',
        "}",
    ]


def test_a_plan_as_a_graph_of_hosts_shows_what_each_gives_and_takes() -> None:
    graph = graph_of_hosts(planned(site(HOT), policy()))
    assert [(node.lines, node.layer) for node in graph.nodes] == [
        (("h1", "CPU 90% → 60%, memory 23% → 20%", "3 → 2 VMs"), 0),
        (("h3", "CPU 0% → 30%, memory 0% → 3%", "0 → 1 VM"), 2),
    ]
    assert graph.edges == (("h1", "h3", "b"),)


@pytest.mark.parametrize("graph_of", [graph_of_moves, graph_of_hosts])
def test_a_drawing_is_an_svg_picture_whatever_names_there_are(
    graph_of: Callable[[Plan], Graph],
) -> None:
    made = planned(site(HOT.replace("b 3c", "<b>&c 3c")), policy())
    root = ElementTree.fromstring(as_svg(graph_of(made)))
    texts = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert any("<b>&c" in text for text in texts)
    boxes = [r for r in root.iter("{http://www.w3.org/2000/svg}rect") if r.get("rx")]
    assert len(boxes) == len(graph_of(made).nodes)


def test_an_empty_plan_is_an_empty_picture() -> None:
    made = planned(site("h1 10c 64G: a 4c 8G"), policy())
    assert ElementTree.fromstring(as_svg(graph_of_moves(made))).tag.endswith("svg")
    assert as_dot(graph_of_hosts(made)).splitlines()[-1] == "}"
