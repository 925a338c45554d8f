"""Steps in an order that the rules accept, and which of them have to wait."""

from balancerd.core.ordering.order import Step, Want, dependencies, schedule
from balancerd.core.past.history import History
from balancerd.core.placing.layout import Layout
from balancerd.core.placing.survey import lay_out
from balancerd.core.policies.rule import ConstraintRule
from tests.sites import NOW, policy, rule, site


def drawn_up(text: str, *rules: ConstraintRule) -> Layout:
    return lay_out(site(text), policy("quiet", *rules), History(), NOW)


def wants(layout: Layout, **targets: str) -> list[Want]:
    return [Want(layout.block_of[vm], layout.host_row[to], "") for vm, to in targets.items()]


def ways(layout: Layout, steps: list[Step]) -> list[str]:
    return [f"{layout.blocks[s.block][0]}>{layout.hosts[s.target]}" for s in steps]


FULL = "h1 10c 64G: a 1c 30G | h2 10c 64G: b 1c 30G | h3 10c 64G: c 1c 30G | h4 10c 64G:"


def test_a_chain_is_followed_from_its_free_end() -> None:
    """Dies if `schedule` gives up after one pass."""
    layout = drawn_up(FULL)
    steps, refused = schedule(layout, wants(layout, a="h2", b="h3", c="h4"))
    assert (ways(layout, steps), refused) == (["c>h4", "b>h3", "a>h2"], [])


def test_each_link_of_a_chain_waits_for_the_one_that_makes_room() -> None:
    layout = drawn_up(FULL)
    origin = layout.copy()
    steps, _ = schedule(layout, wants(layout, a="h2", b="h3", c="h4"))
    assert dependencies(origin, steps) == [(), (0,), (1,)]


def test_a_ring_of_three_needs_one_parking() -> None:
    layout = drawn_up(FULL)
    origin = layout.copy()
    steps, refused = schedule(layout, wants(layout, a="h2", b="h3", c="h1"))
    assert (ways(layout, steps), refused) == (["a>h4", "c>h1", "b>h3", "a>h2"], [])
    assert [step.parked for step in steps] == [False, False, False, True]
    assert dependencies(origin, steps) == [(), (0,), (1,), (2,)]


def test_a_ring_without_a_parking_host_is_refused_whole() -> None:
    layout = drawn_up(FULL.replace("| h4 10c 64G:", "| h4 10c 1G:"))
    steps, refused = schedule(layout, wants(layout, a="h2", b="h3", c="h1"))
    assert steps == []
    assert {refusal.constraint for refusal in refused} == {"memory"}


def test_moves_that_fit_side_by_side_do_not_wait() -> None:
    layout = drawn_up("h1 10c 64G: a 1c 8G, b 1c 8G | h2 10c 64G:")
    origin = layout.copy()
    steps, _ = schedule(layout, wants(layout, a="h2", b="h2"))
    assert dependencies(origin, steps) == [(), ()]


def test_a_host_that_is_entered_and_left_again_is_waited_for() -> None:
    """Dies if a step is compared with the layout at the start only."""
    layout = drawn_up("h1 10c 64G: a 1c 30G, b 1c 30G | h2 10c 64G: | h3 10c 64G:")
    a, b, (h2, h3) = layout.block_of["a"], layout.block_of["b"], (1, 2)
    steps = [Step(a, 0, h2, ""), Step(a, h2, h3, ""), Step(b, 0, h2, "")]
    assert dependencies(layout, steps) == [(), (0,), (1,)]


def test_members_of_a_group_leave_a_rack_before_another_enters() -> None:
    """Dies if only the visitors of the target host count."""
    layout = drawn_up(
        "r1/h1 10c 64G: a 1c 8G | r1/h2 10c 64G: | r2/h3 10c 64G: b 1c 8G | r3/h4 10c 64G:",
        rule("apart", "a b", scope="rack"),
    )
    origin = layout.copy()
    steps, _ = schedule(layout, wants(layout, b="h2", a="h4"))
    assert ways(layout, steps) == ["a>h4", "b>h2"]
    assert dependencies(origin, steps) == [(), (0,)]


def test_what_is_to_be_together_arrives_before_the_others_leave() -> None:
    """Dies if only groups that are to be apart move in the plan's order."""
    layout = drawn_up(
        "r1/h1 10c 64G: a 1c 8G, b 1c 8G | r1/h2 10c 64G: | "
        "r2/h3 10c 64G: c 1c 8G | r2/h4 10c 64G:",
        rule("together", "a b c", scope="rack"),
    )
    a, c = layout.block_of["a"], layout.block_of["c"]
    assert dependencies(layout, [Step(a, 0, 3, ""), Step(c, 2, 1, "")]) == [(), (0,)]


def test_what_others_of_its_group_have_joined_does_not_leave_them() -> None:
    """On one host they are one block to whoever lets moves start: it would ask for room for both.

    Dies if a member may go on to where as many of the others are as around it.
    """
    layout = drawn_up(
        "h1 10c 64G: a 1c 8G | h2 10c 64G: b 1c 8G | h3 10c 64G: c 1c 8G", rule("together", "a b c")
    )
    steps, refused = schedule(layout, wants(layout, a="h2", b="h3"))
    assert ways(layout, steps) == ["a>h2"]
    assert [refusal.constraint for refusal in refused] == ["together"]
