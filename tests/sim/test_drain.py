"""A drain ends about as soon as the links allow."""

import runpy
from pathlib import Path

import pytest

DRAIN = Path(__file__).parents[2] / "benchmarks" / "drain.py"


@pytest.mark.parametrize("name", ["quiet", "narrow_hosts"])
def test_twenty_vms_leave_their_hosts_within_15_percent_of_what_the_narrowest_link_allows(
    name: str,
) -> None:
    """Dies if migrations go in waves, if links are not shared out, or the longest go last."""
    benchmark = runpy.run_path(str(DRAIN))
    found = benchmark["case"](*benchmark["CASES"][name])
    assert (found["migrations"], found["outcomes"]) == (20, ["done"])
    assert 1.0 <= found["ratio"] <= 1.15
