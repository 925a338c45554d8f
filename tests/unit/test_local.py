"""The machine the tests run on."""

import time
from pathlib import Path

import pytest

from balancerd.adapters import local


@pytest.mark.parametrize(
    ("uri", "here"),
    [
        ("qemu:///system", True),
        ("qemu:///session", True),
        ("qemu+unix:///system?socket=/run/x", True),
        ("qemu+ssh://root@h1/system", False),
        ("qemu+tcp://10.0.0.1/system", False),
        ("qemu://h1/system", False),
        ("test:///default", False),
    ],
)
def test_a_uri_without_a_machine_means_this_one(uri: str, here: bool) -> None:
    assert local.runs_here(uri) is here


def test_counters_grow_and_memory_is_within_what_there_is() -> None:
    before = local.counters()
    deadline = time.process_time() + 0.05
    while time.process_time() < deadline:
        pass
    after = local.counters()
    assert after.cpu_busy > before.cpu_busy
    assert 0 < after.memory_available < after.memory_total


def test_pressure_is_told_in_seconds_where_the_kernel_tells_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "memory"
    monkeypatch.setattr(local, "PRESSURE", told)
    assert local.counters().memory_stalled is None
    told.write_text(
        "some avg10=1.00 avg60=0.50 avg300=0.10 total=2500000\n"
        "full avg10=0.00 avg60=0.00 avg300=0.00 total=900000\n"
    )
    assert local.counters().memory_stalled == 2.5
    told.write_text("")
    assert local.counters().memory_stalled is None


def test_the_footprint_is_of_this_process() -> None:
    mark = local.footprint()
    assert mark.rss > 2**20
    assert mark.threads >= 1
    assert abs(mark.cpu - time.process_time()) < 1.0
