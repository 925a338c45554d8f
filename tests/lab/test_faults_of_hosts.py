"""The fault script on real hosts: libvirtd and QEMU die or hang under a migration."""

from pathlib import Path

import pytest

from tests.lab.faults import HOSTS_FAIL, Case
from tests.lab.rig import GuestSpec, Rig
from tests.lab.stage import play


@pytest.mark.parametrize("case", HOSTS_FAIL, ids=str)
def test_it_ends_as_it_may_and_the_ledger_is_right(
    standing_rig: Rig, tmp_path: Path, case: Case
) -> None:
    play(case, standing_rig, GuestSpec(), tmp_path)
