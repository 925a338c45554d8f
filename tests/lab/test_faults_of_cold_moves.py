"""The fault script on real hosts: VMs that are shut off, and libvirtd that dies as one is moved."""

from pathlib import Path

import pytest

from tests.lab.faults import COLD_MOVES, Case
from tests.lab.rig import Disk, GuestSpec, Rig
from tests.lab.stage import play


@pytest.mark.parametrize("case", COLD_MOVES, ids=str)
def test_it_ends_as_it_may_and_the_ledger_is_right(
    standing_rig: Rig, tmp_path: Path, case: Case
) -> None:
    """Dies if the definition is not carried over, or a drain's cold move is believed too soon."""
    play(case, standing_rig, GuestSpec(disk=Disk("shared")), tmp_path)
