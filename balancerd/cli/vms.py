"""`vms`: the VMs, where they are, and how busy."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from balancerd.adapters.sqlite.reader import Reader
from balancerd.adapters.sqlite.values import Values
from balancerd.cli.errors import must_exist
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
from balancerd.cli.words import NOTHING, moment, number, size
from balancerd.core.model import Snapshot


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
    if host is not None:
        must_exist("host", host, [item["name"] for item in reader.hosts()])
    snapshot = Values(reader.database).snapshot()
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
