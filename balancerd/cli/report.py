"""`report`: what was predicted of migrations, against what they took."""

from collections.abc import Iterator, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import click

from balancerd.cli.output import Column, Form, Listing, Row, output_option, write_listing
from balancerd.cli.record import reading, record_option, since_option, since_time
from balancerd.cli.words import NOTHING, milliseconds, percent, size
from balancerd.core.history import Outcome

# What is compared, and the word for it in the rows.
COMPARED = (
    ("seconds", "predicted_seconds", "seconds"),
    ("bytes", "predicted_bytes", "bytes"),
    ("downtime_ms", "predicted_downtime_ms", "downtime"),
)


@click.command()
@since_option
@output_option
@record_option
def report(since: str | None, form: Form, record: Path) -> None:
    """Compare what was predicted of migrations with what they took, method by method."""
    with reading(record) as reader:
        rows = reader.migrations(since_time(since, reader))
    found = list(compared(rows))
    write_listing(Listing(found, REPORT, empty="no migration has ended"), form)


def compared(migrations: Sequence[Row]) -> Iterator[Row]:
    """One row for each method: how migrations ended, and actual figures as shares of predicted."""
    methods: dict[str, list[Row]] = {}
    for row in migrations:
        if row["ended_at"] is not None:
            methods.setdefault(row["method"], []).append(row)
    for method, ended in sorted(methods.items()):
        done = [row for row in ended if row["outcome"] == Outcome.DONE]
        figures: dict[str, Any] = {
            "method": method,
            "migrations": len(ended),
            "done": len(done),
            "bytes": sum(row["bytes"] or 0 for row in ended),
            "downtime_ms_max": max((row["downtime_ms"] or 0.0 for row in done), default=None),
        }
        for actual, predicted, word in COMPARED:
            shares = sorted(
                row[actual] / row[predicted] for row in done if row[actual] and row[predicted]
            )
            figures[f"{word}_of_predicted_p50"] = _quantile(shares, 0.5)
            figures[f"{word}_of_predicted_p90"] = _quantile(shares, 0.9)
        yield figures


def _quantile(ordered: Sequence[float], share: float) -> float | None:
    """The smallest value that at least this share of all do not exceed; None of none."""
    return ordered[max(ceil(share * len(ordered)) - 1, 0)] if ordered else None


def _both(word: str) -> Column:
    """The median, and what nine of ten stay below."""

    def show(row: Row) -> str:
        half, most = row[f"{word}_of_predicted_p50"], row[f"{word}_of_predicted_p90"]
        return NOTHING if half is None else f"{percent(half)} ({percent(most)})"

    header = {"seconds": "TIME", "bytes": "DATA", "downtime": "PAUSE"}[word]
    return Column(f"{header} OF PREDICTED (P90)", show, right=True)


REPORT = (
    Column("METHOD", lambda row: row["method"] or NOTHING, style=lambda _: "bold"),
    Column("ENDED", lambda row: str(row["migrations"]), right=True),
    Column("DONE", lambda row: str(row["done"]), right=True),
    Column("DATA", lambda row: size(row["bytes"]), right=True),
    *(_both(word) for _, _, word in COMPARED),
    Column("LONGEST PAUSE", lambda row: milliseconds(row["downtime_ms_max"]), right=True),
)
