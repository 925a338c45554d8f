"""Predicted against actual figures of migrations."""

from pathlib import Path
from typing import Any

import pytest

from balancerd.cli.errors import Exit
from balancerd.cli.report import compared
from tests.records import balancerctl, make_record


def migration(**changed: Any) -> dict[str, Any]:
    return {
        "method": "pre-copy",
        "outcome": "done",
        "seconds": 10.0,
        "predicted_seconds": 10.0,
        "bytes": 1000,
        "predicted_bytes": 500,
        "downtime_ms": 40.0,
        "predicted_downtime_ms": 80.0,
        "predicted_least_seconds": 20.0,
        "predicted_most_seconds": 80.0,
        "predicted_least_bytes": None,
        "predicted_most_bytes": None,
        "predicted_least_downtime_ms": 0.0,
        "predicted_most_downtime_ms": 40.0,
    } | changed


def test_shares_are_of_what_was_predicted_and_only_of_what_was_done() -> None:
    """Dies when a failed migration is compared, or the wrong way round."""
    rows = [
        *(migration(seconds=10.0 * n) for n in range(1, 11)),
        migration(outcome="failed", seconds=9999.0, downtime_ms=None),
        migration(method="post-copy", seconds=None, predicted_bytes=0),
    ]
    post, pre = compared(rows)
    assert (pre["migrations"], pre["done"], pre["bytes"]) == (11, 10, 11_000)
    assert (pre["seconds_of_predicted_p50"], pre["seconds_of_predicted_p90"]) == (5.0, 9.0)
    assert pre["bytes_of_predicted_p50"] == 2.0
    assert pre["downtime_of_predicted_p90"] == 0.5
    assert pre["seconds_as_foreseen_share"] == 0.7  # 20 to 80 of 10, 20, .. 100
    assert (pre["bytes_as_foreseen_share"], pre["downtime_as_foreseen_share"]) == (None, 1.0)
    assert (post["method"], post["seconds_of_predicted_p50"]) == ("post-copy", None)
    assert post["bytes_of_predicted_p50"] is None


def test_how_far_off_predictions_were_is_told_of_the_oldest_and_of_the_newest() -> None:
    """Dies when they are confused, or when being too early is no error."""
    rows = [migration(seconds=10.0 * share) for share in (1.1, 0.9, 1.5, 0.7, 3.0, 0.2)]
    (found,) = compared(rows)
    assert found["seconds_error_p50_newest"] == pytest.approx(0.1)
    assert found["seconds_error_p50_oldest"] == pytest.approx(0.8)
    (untold,) = compared([migration(seconds=None)])
    assert untold["seconds_error_p50_newest"] is None


def test_the_report_of_a_record(tmp_path: Path) -> None:
    make_record(tmp_path)
    done = balancerctl("report", record=tmp_path)
    assert done.returncode == Exit.DONE
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert done.stdout.splitlines()[2].startswith("pre-copy")
    assert balancerctl("report", "--since", "2030-01-01", record=tmp_path).stdout == (
        "no migration has ended\n"
    )
