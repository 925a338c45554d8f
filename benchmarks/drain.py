"""Draining four hosts with 20 VMs over shared links, against the bound of the links.

    python benchmarks/drain.py

The hosts of one rack have to give all that they carry to the hosts of another, over one link
between the racks: the narrowest cut. The bound is the bytes that were really sent over each link
(what VMs wrote meanwhile included), divided by its width, and the largest of these. Measured is the
time from the first start to the last conclusion, both hosts asked. Prints one JSON object: with VMs
that write nothing, with VMs that do, and with the hosts' own links as the narrowest.
"""

import json
import logging
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from balancerd.adapters.sim.scenario import Scenario
from balancerd.adapters.sim.site import Site, build
from balancerd.adapters.sqlite.ledger import Ledger
from balancerd.adapters.sqlite.reader import Reader
from balancerd.adapters.sqlite.samples import SamplesStore
from balancerd.core.moving.topology import Topology
from balancerd.core.policies.policy import Policy
from balancerd.core.units import parse_time
from balancerd.simulation import simulate

DRAINED, VMS = 4, 20
SCENARIO: Mapping[str, Any] = {
    "name": "drain",
    "start": "2026-03-02T00:00:00+00:00",
    "duration": "30m",
    "cycle": "15s",
    "hosts": [{"name": "h%d", "count": 2 * DRAINED, "cores": 32, "memory": "256 GiB"}],
    "network": {"host": "10 Gbit/s", "rack": "10 Gbit/s", "racks": 2, "rack_name": "r%d"},
    "migration": {"setup": "300ms", "switch_over": "40ms"},
    "load": {"step": "300s"},
}
SIZES = ("2 GiB", "4 GiB", "8 GiB", "12 GiB", "24 GiB")
POLICY: Mapping[str, Any] = {
    "name": "maintenance",
    "summary": "empty hosts as fast as the links allow",
    "mode": "act",
    "objective": "drain",
    "detection": {"warm_up": 0.0},
    "limits": {
        "per_site": 8,
        "per_host": 2,
        "per_link": 8,
        "bandwidth": 1_250_000_000,
        "link_share": 1.0,
    },
}
CASES: Mapping[str, tuple[str, str]] = {  # writing at full CPU use, and the hosts' own links
    "quiet": ("0 MB/s", "10 Gbit/s"),
    "writing": ("200 MB/s", "10 Gbit/s"),
    "narrow_hosts": ("20 MB/s", "2 Gbit/s"),
}


def main() -> None:
    logging.disable(logging.WARNING)
    print(json.dumps({name: case(*CASES[name]) for name in CASES}, indent=2))


def case(dirty: str, host: str) -> dict[str, Any]:
    """One drain: what it took, the bound, and their ratio."""
    flavours = [
        {"vcpus": 4, "cpu": 4.0, "memory": size, "count": VMS // len(SIZES), "dirty_rate": dirty}
        for size in SIZES
    ]
    network = SCENARIO["network"] | {"host": host}
    scenario = Scenario.model_validate({**SCENARIO, "flavours": flavours, "network": network})
    site = build(scenario)
    site = replace(site, placement=tuple(vm % DRAINED for vm in range(VMS)))
    rows = drained(site)
    begun = min(parse_time(row["begun_at"]) for row in rows)
    took = max(parse_time(row["ended_at"]) for row in rows) - begun
    least = bound(site, rows)
    return {
        "migrations": len(rows),
        "outcomes": sorted({row["outcome"] for row in rows}),
        "bytes": sum(row["bytes"] for row in rows),
        "seconds": round(took, 3),
        "bound_seconds": round(least, 3),
        "ratio": round(took / least, 4),
    }


def drained(site: Site) -> list[dict[str, Any]]:
    """The migrations that emptied the hosts."""
    with (
        tempfile.TemporaryDirectory(prefix="balancerd-") as record,
        Ledger(Path(record) / "ledger.db", durable=False) as ledger,
        SamplesStore(Path(record) / "samples.db", durable=False) as samples,
    ):
        for host in site.hosts[:DRAINED]:
            ledger.set_draining(host.name, draining=True, at=site.scenario.start)
        simulate(site, Policy.model_validate(POLICY), ledger, samples)
        return Reader(ledger.database).migrations()


def bound(site: Site, rows: list[dict[str, Any]]) -> float:
    """Seconds that the busiest link needs for what was sent over it."""
    topology = Topology.of([host.name for host in site.hosts], site.links)
    sent = [0.0] * len(topology.bandwidth)
    for row in rows:
        for link in topology.path(topology.row[row["source"]], topology.row[row["target"]]):
            sent[link] += row["bytes"]
    widths: list[float] = topology.bandwidth.tolist()
    return max(total / width for total, width in zip(sent, widths, strict=True))


if __name__ == "__main__":
    main()
