"""The fault script on real hosts: links that fail, and a VM that writes too much for its link."""

from pathlib import Path

import pytest

from tests.lab.faults import LINKS_FAIL, Case
from tests.lab.rig import GuestSpec, Rig
from tests.lab.stage import play


@pytest.mark.parametrize("case", LINKS_FAIL, ids=str)
def test_it_ends_as_it_may_and_the_ledger_is_right(
    standing_rig: Rig, tmp_path: Path, case: Case
) -> None:
    play(case, standing_rig, GuestSpec(), tmp_path)
