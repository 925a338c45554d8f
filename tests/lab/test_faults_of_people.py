"""The fault script on real hosts: people act at the same time, and disks that move along."""

from pathlib import Path

import pytest

from tests.lab.faults import DISKS_MOVE, PEOPLE_ACT, Case
from tests.lab.rig import Disk, GuestSpec, Rig
from tests.lab.stage import play


@pytest.mark.parametrize("case", PEOPLE_ACT, ids=str)
def test_it_ends_as_it_may_and_the_ledger_is_right(
    standing_rig: Rig, tmp_path: Path, case: Case
) -> None:
    play(case, standing_rig, GuestSpec(disk=Disk("shared")), tmp_path)


@pytest.mark.parametrize("case", DISKS_MOVE, ids=str)
def test_a_disk_that_moves_along_is_whole_whatever_happens(
    standing_rig: Rig, tmp_path: Path, case: Case
) -> None:
    play(case, standing_rig, GuestSpec(disk=Disk("local", 48, "raw", allocated=True)), tmp_path)
