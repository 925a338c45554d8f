"""`report`: what was predicted of migrations, against what they took.

A migration went as foreseen if it took between the least and the most that was predicted.
"""

from collections.abc import Iterator, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import click

from balancerd.cli.output import Column, Form, Listing, Row, output_option, write_listing
from balancerd.cli.record import reading, record_option, since_option, since_time
from balancerd.cli.words import NOTHING, milliseconds, percent, size
from balancerd.core.past.history import Outcome

# What is compared, and the word for it in the rows.
COMPARED = (("seconds", "seconds"), ("bytes", "bytes"), ("downtime_ms", "downtime"))


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
        if row["ended_at"] is not None and row["outcome"] != Outcome.OBJECTED:
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
        for actual, word in COMPARED:
            shares = sorted(
                row[actual] / row[f"predicted_{actual}"]
                for row in done
                if row[actual] and row[f"predicted_{actual}"]
            )
            figures[f"{word}_of_predicted_p50"] = _quantile(shares, 0.5)
            figures[f"{word}_of_predicted_p90"] = _quantile(shares, 0.9)
            figures[f"{word}_as_foreseen_share"] = _foreseen(done, actual)
        yield figures


def _foreseen(done: Sequence[Row], actual: str) -> float | None:
    """The share of migrations that took between the least and the most that was predicted."""
    least, most = f"predicted_least_{actual}", f"predicted_most_{actual}"
    told = [row for row in done if row[actual] is not None and row[most]]
    held = sum((row[least] or 0) <= row[actual] <= row[most] for row in told)
    return held / len(told) if told else None


def _quantile(ordered: Sequence[float], share: float) -> float | None:
    """The smallest value that at least this share of all do not exceed; None of none."""
    return ordered[max(ceil(share * len(ordered)) - 1, 0)] if ordered else None


def _figure(word: str) -> Column:
    """The median of the shares, what nine of ten stay below, and how many were as foreseen."""

    def show(row: Row) -> str:
        half, most = row[f"{word}_of_predicted_p50"], row[f"{word}_of_predicted_p90"]
        if half is None:
            return NOTHING
        return f"{percent(half)} ({percent(most)}), {percent(row[f'{word}_as_foreseen_share'])}"

    header = {"seconds": "TIME", "bytes": "DATA", "downtime": "PAUSE"}[word]
    return Column(f"{header}: OF PREDICTED (P90), AS FORESEEN", show, right=True)


REPORT = (
    Column("METHOD", lambda row: row["method"] or NOTHING, style=lambda _: "bold"),
    Column("ENDED", lambda row: str(row["migrations"]), right=True),
    Column("DONE", lambda row: str(row["done"]), right=True),
    Column("DATA", lambda row: size(row["bytes"]), right=True),
    *(_figure(word) for _, word in COMPARED),
    Column("LONGEST PAUSE", lambda row: milliseconds(row["downtime_ms_max"]), right=True),
)
