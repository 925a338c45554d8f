"""`hosts` and `vms`: what there is, and how busy it is."""

from collections.abc import Iterator, Mapping
from math import inf
from pathlib import Path
from typing import Any

import click

from balancerd.adapters.sqlite.reader import Reader
from balancerd.cli.errors import invalid
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
from balancerd.cli.words import NOTHING, duration, moment, number, percent, size
from balancerd.complaints import nearest
from balancerd.core.model import Snapshot
from balancerd.core.placing.assess import assess
from balancerd.core.plan import Assessment
from balancerd.core.policies.policy import Policy
from balancerd.documents import DocumentError, parse

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


def wrong_clocks(reader: Reader) -> list[str]:
    """The hosts whose clock is further from balancerd's than those of two hosts may be apart for
    VMs to move between them, as far as that is known."""
    policy = _policy(reader)
    most = policy.limits.clock_skew if policy else inf
    shown = {item["name"]: item["clock_ahead_seconds"] or 0.0 for item in reader.hosts()}
    return [
        f"{host} is {duration(abs(ahead))} {'ahead' if ahead > 0 else 'behind'} (limits.clock_skew)"
        for host, ahead in shown.items()
        if abs(ahead) > most
    ]


def _ahead(seconds: float | None) -> str:
    if seconds is None:
        return NOTHING
    sign = "+" if seconds > 0 else "-"
    return f"{sign}{duration(abs(seconds))}" if seconds else "0s"


def _assessments(reader: Reader) -> Mapping[str, Assessment]:
    """The verdicts on the newest snapshot, by host; none where it or the policy is not known."""
    snapshot, policy = reader.snapshot(), _policy(reader)
    if snapshot is None or policy is None:
        return {}
    found = assess(snapshot, policy.at(snapshot.at), snapshot.at)
    return {assessment.host: assessment for assessment in found}


def _policy(reader: Reader) -> Policy | None:
    """The policy last put in force, if this balancerd still understands it."""
    recorded = reader.policy()
    try:
        return parse(recorded[1], Policy, recorded[0]) if recorded else None
    except DocumentError:
        return None


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
    Column("WHY", lambda row: row["verdict_reason"] or "", wrap=True),
)


@click.command()
@click.option("--host", metavar="HOST", help="Only the VMs on this host.")
@watch_option
@output_option
@record_option
def vms(host: str | None, watch: float | None, form: Form, record: Path) -> None:
    """List the VMs with their host and load."""

    def show() -> None:
        with reading(record) as reader:
            rows = list(_vm_rows(reader, host))
        write_listing(
            Listing(rows, VMS, empty=f"no VM is on {host}" if host else "no VM was seen yet"), form
        )

    again_and_again(show, watch)


def _vm_rows(reader: Reader, host: str | None) -> Iterator[Row]:
    known = [item["name"] for item in reader.hosts()]
    if host is not None and host not in known:
        raise invalid(f'there is no host "{host}"{nearest(host, known)}')
    snapshot = reader.snapshot()
    excluded = {e.vm: e for e in snapshot.exclusions} if snapshot else {}
    for item in reader.vms():
        if host in (None, item["host"]):
            why = excluded.get(item["name"])
            fixed = {"not_movable": f"{why.kind}: {why.detail}" if why else None}
            yield item | _vm_load(snapshot, item["name"]) | fixed


def _vm_load(snapshot: Snapshot | None, name: str) -> dict[str, Any]:
    load = snapshot.loads.get(name) if snapshot else None
    forecast = snapshot.forecasts.get(name) if snapshot else None
    return {
        "cpu_used_reference_cores": load.cpu if load else None,
        "cpu_mean_reference_cores": load.cpu_mean if load else None,
        "cpu_expected_reference_cores": forecast.cpu if forecast else None,
        "memory_used_bytes": load.memory if load else None,
    }


VMS = (
    Column("VM", lambda row: row["name"], style=lambda _: "bold"),
    Column("HOST", lambda row: row["host"] or NOTHING),
    Column("STATE", lambda row: row["state"]),
    Column("CPU NOW", lambda row: number(row["cpu_used_reference_cores"], 2), right=True),
    Column("EXPECTED", lambda row: number(row["cpu_expected_reference_cores"], 2), right=True),
    Column(
        "CORES", lambda row: number(row["cpu_reference_cores"] or row["vcpus"]), right=True, spare=1
    ),
    Column("MEMORY", lambda row: size(row["memory_bytes"]), right=True),
    Column("THERE SINCE", lambda row: moment(row["on_host_since_at"]), spare=2),
    Column("NOT MOVABLE", lambda row: row["not_movable"] or "", wrap=True),
)
