"""The lab as fixtures. One lab serves the whole session; every test starts from a clean slate."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.lab.rig import Rig, why_unavailable
from tests.lab.service import MakeService, Service

FAILED = pytest.StashKey[bool]()


@pytest.fixture(scope="session")
def standing_rig() -> Iterator[Rig]:
    """Three hosts of one CPU and 2 GiB each, under a number no other lab has."""
    if (why := why_unavailable()) is not None:
        pytest.skip(why)
    with Rig.free() as rig:
        yield rig


@pytest.fixture
def rig(standing_rig: Rig) -> Rig:
    """The session's lab as it was when it came up: all hosts on, no faults, no guests."""
    standing_rig.reset()
    return standing_rig


@pytest.fixture
def service(rig: Rig, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[MakeService]:
    """Makes the service of a policy; it is gone when the test is, and tells why one failed."""
    made: list[Service] = []

    def make(policy_text: str) -> Service:
        made.append(Service(rig, tmp_path, policy_text))
        return made[-1]

    yield make
    for each in made:
        each.kill()
        if request.node.stash.get(FAILED, False):
            each.tell()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let fixtures know whether their test failed."""
    report = yield
    if call.when == "call":
        item.stash[FAILED] = report.failed
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "/tests/lab/" in item.path.as_posix():
            item.add_marker(pytest.mark.lab)
