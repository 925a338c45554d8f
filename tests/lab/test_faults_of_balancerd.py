"""The fault script on real hosts: balancerd itself dies, and another one finds what it left."""

from pathlib import Path

import pytest

from tests.lab.faults import BALANCERD_DIES, Case
from tests.lab.rig import Disk, GuestSpec, Rig
from tests.lab.stage import play

UNLOCKED = Disk("shared", format="raw", shareable=True)


@pytest.mark.parametrize("case", BALANCERD_DIES, ids=str)
def test_it_ends_as_it_may_and_the_ledger_is_right(
    standing_rig: Rig, tmp_path: Path, case: Case
) -> None:
    """Dies if the next one does not ask the hosts, or does not know what was announced."""
    spec = GuestSpec(disk=UNLOCKED) if case.unlocked else GuestSpec()
    play(case, standing_rig, spec, tmp_path)
