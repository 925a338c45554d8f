"""`report`: what was predicted of migrations, against what they took.

A migration went as foreseen if it took between the least and the most that was predicted. How far
off predictions were is told of the oldest and of the newest third of those that were done: what was
learned in between shows in that.
"""

from collections.abc import Callable, Iterator, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import click

from balancerd.cli.output import Column, Form, Listing, Row, output_option, write_listing
from balancerd.cli.record import reading, record_option, since_option, since_time
from balancerd.cli.words import NOTHING, milliseconds, percent, size
from balancerd.core.outcome import Outcome

# What is compared, and the word for it in the rows.
COLUMNS = (
    "of_predicted_p50",
    "of_predicted_p90",
    "error_p50_oldest",
    "error_p50_newest",
    "as_foreseen_share",
)
COMPARED = (("seconds", "seconds"), ("bytes", "bytes"), ("downtime_ms", "downtime"))


@click.command()
@since_option
@output_option
@record_option
def report(since: str | None, form: Form, record: Path) -> None:
    """Compare what was predicted of migrations with what they took, method by method."""
    with reading(record) as reader:
        rows = reader.ends(since_time(since, reader))
    found = list(compared(rows))
    shown = [line for row in found for line in _lines(row)] if form is Form.TABLE else found
    write_listing(Listing(shown, REPORT, empty="no migration has ended"), form)


def compared(migrations: Sequence[Row]) -> Iterator[Row]:
    """One row for each method: how migrations ended, and actual figures as shares of predicted.
    Those that ended come newest first, as the record has them."""
    methods: dict[str, list[Row]] = {}
    for row in migrations:
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
            all_shares = [
                row[actual] / row[f"predicted_{actual}"]
                for row in done
                if row[actual] and row[f"predicted_{actual}"]
            ]
            shares, third = sorted(all_shares), ceil(len(all_shares) / 3)
            figures[f"{word}_of_predicted_p50"] = _quantile(shares, 0.5)
            figures[f"{word}_of_predicted_p90"] = _quantile(shares, 0.9)
            figures[f"{word}_error_p50_oldest"] = _error(all_shares[len(all_shares) - third :])
            figures[f"{word}_error_p50_newest"] = _error(all_shares[:third])
            figures[f"{word}_as_foreseen_share"] = _foreseen(done, actual)
        yield figures


def _foreseen(done: Sequence[Row], actual: str) -> float | None:
    """The share of migrations that took between the least and the most that was predicted."""
    least, most = f"predicted_least_{actual}", f"predicted_most_{actual}"
    told = [row for row in done if row[actual] is not None and row[most]]
    held = sum((row[least] or 0) <= row[actual] <= row[most] for row in told)
    return held / len(told) if told else None


def _error(shares: Sequence[float]) -> float | None:
    """By how much of what was predicted half of the figures differed from it at most."""
    return _quantile(sorted(abs(share - 1.0) for share in shares), 0.5)


def _quantile(ordered: Sequence[float], share: float) -> float | None:
    """The smallest value that at least this share of all do not exceed; None of none."""
    return ordered[max(ceil(share * len(ordered)) - 1, 0)] if ordered else None


def _lines(row: Row) -> Iterator[Row]:
    """A line for each figure that is compared; only the first says what is true of all."""
    for word, header in (("seconds", "time"), ("bytes", "data"), ("downtime", "pause")):
        shares = {share: row[f"{word}_{share}"] for share in COLUMNS}
        yield {**row, **shares, "figure": header, "first": word == "seconds"}


def _once(show: Callable[[Row], str]) -> Callable[[Row], str]:
    return lambda row: show(row) if row["first"] else ""


def _off(row: Row) -> str:
    """How far off predictions were at first, and by now."""
    first, last = (percent(row[f"error_p50_{which}"]) for which in ("oldest", "newest"))
    return NOTHING if first == last == NOTHING else f"{first}>{last}"


REPORT = (
    Column("METHOD", _once(lambda row: row["method"] or NOTHING), style=lambda _: "bold"),
    Column("ENDED", _once(lambda row: str(row["migrations"])), right=True),
    Column("DONE", _once(lambda row: str(row["done"])), right=True),
    Column("DATA", _once(lambda row: size(row["bytes"])), right=True, spare=1),
    Column("PAUSE", _once(lambda row: milliseconds(row["downtime_ms_max"])), right=True),
    Column("ACTUAL", lambda row: row["figure"]),
    Column("MEDIAN", lambda row: percent(row["of_predicted_p50"]), right=True),
    Column("90%", lambda row: percent(row["of_predicted_p90"]), right=True),
    Column("OFF BY", _off, right=True),
    Column("FORESEEN", lambda row: percent(row["as_foreseen_share"]), right=True),
)
