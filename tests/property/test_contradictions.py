"""Contradictions, against trying out every placement."""

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from balancerd.core.moving.graphs import overcrowded

CHOICES = st.dictionaries(
    st.sampled_from("abcde"), st.frozensets(st.integers(0, 3), max_size=4), max_size=5
)


@given(CHOICES, st.integers(1, 2))
def test_names_are_overcrowded_exactly_if_no_placement_has_room_for_them(
    choices: dict[str, frozenset[int]], at_most: int
) -> None:
    """And those that are named cannot be placed either. Dies if places take one name each."""
    tight, places = overcrowded(choices, at_most)
    assert bool(tight) != fits(list(choices.values()), at_most)
    assert set(places) == {place for name in tight for place in choices[name]}
    assert not tight or len(tight) > at_most * len(places)


def fits(choices: list[frozenset[int]], at_most: int) -> bool:
    return any(
        all(way.count(place) <= at_most for place in way)
        for way in product(*[sorted(open_) for open_ in choices])
    )
