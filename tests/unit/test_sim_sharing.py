"""How migrations share links."""

from typing import TypeAlias

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from balancerd.adapters.sim.sharing import max_min_rates

NO_CAP = 1e12

Network: TypeAlias = tuple[list[list[int]], list[float], list[float]]  # paths, capacities, caps


def rates(
    paths: list[list[int]], capacities: list[float], caps: list[float] | None = None
) -> list[float]:
    endless = len(capacities)
    hops = max(len(path) for path in paths)
    padded = [path + [endless] * (hops - len(path)) for path in paths]
    found = max_min_rates(
        np.array(padded, dtype=np.intp),
        np.array(caps or [NO_CAP] * len(paths)),
        np.array([*capacities, np.inf]),
    )
    return [round(rate, 6) for rate in found.tolist()]


def test_transfers_over_one_link_get_equal_parts() -> None:
    assert rates([[0], [0], [0], [0]], [100.0]) == [25.0] * 4


def test_what_a_capped_transfer_leaves_goes_to_the_others() -> None:
    assert rates([[0], [0], [0]], [100.0], [10.0, NO_CAP, NO_CAP]) == [10.0, 45.0, 45.0]


def test_a_transfer_held_up_elsewhere_leaves_its_part_to_its_neighbours() -> None:
    """Two over link 0, one of which also crosses a narrow link 1 with a third."""
    assert rates([[0, 1], [0], [1]], [100.0, 20.0]) == [10.0, 90.0, 10.0]


def test_nothing_flows_over_a_link_that_is_cut() -> None:
    assert rates([[0, 1], [1]], [0.0, 100.0]) == [0.0, 100.0]


@st.composite
def _networks(draw: st.DrawFn) -> Network:
    links = draw(st.integers(1, 6))
    capacities = draw(st.lists(st.floats(1.0, 1000.0), min_size=links, max_size=links))
    path = st.lists(st.integers(0, links - 1), min_size=1, max_size=3, unique=True)
    paths = draw(st.lists(path, min_size=1, max_size=12))
    caps = draw(st.lists(st.floats(0.5, 2000.0), min_size=len(paths), max_size=len(paths)))
    return paths, capacities, caps


@given(_networks())
def test_every_transfer_is_at_its_cap_or_the_greatest_on_a_full_link(network: Network) -> None:
    """The definition of max-min fairness, checked without any filling.

    Seen to fail when shares are computed once and not after each settling, and when transfers on
    every link that looks narrow to one of its transfers are settled.
    """
    paths, capacities, caps = network
    found = rates(paths, capacities, caps)
    used = [
        sum(rate for path, rate in zip(paths, found, strict=True) if link in path)
        for link in range(len(capacities))
    ]
    for link, capacity in enumerate(capacities):
        assert used[link] <= capacity * (1 + 1e-6) + 1e-5
    for path, rate, cap in zip(paths, found, caps, strict=True):
        assert rate <= cap + 1e-5
        held_up = any(
            used[link] >= capacities[link] * (1 - 1e-6) - 1e-4
            and all(
                rate >= other - 1e-4
                for other_path, other in zip(paths, found, strict=True)
                if link in other_path
            )
            for link in path
        )
        assert held_up or rate >= cap - 1e-4
