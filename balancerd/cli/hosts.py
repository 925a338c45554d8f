"""`hosts`: the machines, how busy they are, and what balancerd makes of that."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from balancerd.adapters.sqlite.reader import Reader
from balancerd.adapters.sqlite.values import Values
from balancerd.cli.in_force import policy_in_force
from balancerd.cli.output import (
    Column,
    Form,
    Listing,
    Row,
    again_and_again,
    output_option,
    watch_option,
    write_listing,
)
from balancerd.cli.record import reading, record_option
from balancerd.cli.words import NOTHING, duration, number, percent, size
from balancerd.core.placing.assess import assess
from balancerd.core.plan import Assessment

STYLES = {
    "overloaded": "red",
    "unknown": "yellow",
    "draining": "yellow",
    "asleep": "dim",
    "idle": "cyan",
}


@click.command()
@watch_option
@output_option
@record_option
def hosts(watch: float | None, form: Form, record: Path) -> None:
    """List the hosts with load and verdict, and how far their clocks are off."""

    def show() -> None:
        with reading(record) as reader:
            rows = list(_host_rows(reader))
        write_listing(Listing(rows, HOSTS, empty="no host was seen yet"), form)

    again_and_again(show, watch)


def _host_rows(reader: Reader) -> Iterator[Row]:
    """What is known of each host, and what balancerd makes of it under the recorded policy."""
    verdicts = _assessments(reader)
    for item in reader.hosts():
        found = verdicts.get(item["name"])
        yield item | {
            "verdict": str(found.verdict) if found else None,
            "verdict_reason": found.reason if found else None,
            "cpu_utilisation": found.cpu if found else None,
            "cpu_mean_utilisation": found.cpu_mean if found else None,
            "memory_utilisation": found.memory if found else None,
        }


def _ahead(seconds: float | None) -> str:
    if seconds is None:
        return NOTHING
    sign = "+" if seconds > 0 else "-"
    return f"{sign}{duration(abs(seconds))}" if seconds else "0s"


def _why(row: Row) -> str:
    """Why the verdict is what it is, and what is wrong with the host beside it."""
    doubted = "its power driver is not believed (see status)" if row["driver_doubted"] else ""
    return "; ".join(filter(None, (row["verdict_reason"], doubted)))


def _assessments(reader: Reader) -> Mapping[str, Assessment]:
    """The verdicts on the newest snapshot, by host; none where it or the policy is not known."""
    snapshot, policy = Values(reader.database).snapshot(), policy_in_force(reader)
    if snapshot is None or policy is None:
        return {}
    found = assess(snapshot, policy.at(snapshot.at), snapshot.at)
    return {assessment.host: assessment for assessment in found}


HOSTS = (
    Column("HOST", lambda row: row["name"], style=lambda _: "bold"),
    Column("RACK", lambda row: row["rack"], spare=1),
    Column("POWER", lambda row: row["power"]),
    Column(
        "VERDICT",
        lambda row: row["verdict"] or NOTHING,
        style=lambda row: STYLES.get(row["verdict"] or "", ""),
    ),
    Column("CPU NOW", lambda row: percent(row["cpu_utilisation"]), right=True),
    Column("MEAN", lambda row: percent(row["cpu_mean_utilisation"]), right=True, spare=2),
    Column("OF CORES", lambda row: number(row["cpu_reference_cores"]), right=True, spare=4),
    Column("MEMORY", lambda row: percent(row["memory_utilisation"]), right=True),
    Column("OF", lambda row: size(row["memory_bytes"]), right=True, spare=3),
    Column("VMS", lambda row: str(row["vms"]), right=True),
    Column("CLOCK", lambda row: _ahead(row["clock_ahead_seconds"]), right=True, spare=5),
    Column("WHY", _why, wrap=True),
)
