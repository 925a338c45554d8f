"""What is offered for a word that does not exist."""

import pytest

from balancerd.nearest import nearest

VMS = [f"vm{number:03}" for number in range(400)]


@pytest.mark.parametrize(
    ("word", "meant"),
    [("vm00", "vm000"), ("VM012", "vm012"), ("vmm12", "vm012"), ("web", "")],
)
def test_a_name_that_begins_alike_is_offered_before_others(word: str, meant: str) -> None:
    """Dies when any of a hundred names that are equally alike is: "vm300" for "vm00"."""
    assert nearest(word, VMS) == (f' (did you mean "{meant}"?)' if meant else "")


def test_nothing_is_offered_where_nothing_is_known() -> None:
    assert nearest("vm1", []) == ""
