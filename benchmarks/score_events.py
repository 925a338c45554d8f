"""Scores a run from its exported events alone; shares no code with the simulator.

    python benchmarks/score_events.py EVENTS.jsonl SCENARIO.toml --trace DIR

Every VM counts for the whole span, every second that a host is on counts, demand is a step function
of the trace, a VM is where the events place it (a move takes effect at its `move_end`), and a host
is on as the `power` events say. Prints one JSON object; shares are fractions of 1.
"""

import argparse
import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
SIZES = {"MB": 1e6, "GB": 1e9, "MiB": 2.0**20, "GiB": 2.0**30}


def seconds(text: str) -> float:
    """Seconds from "1h30m"."""
    return sum(float(n) * UNITS[unit] for n, unit in re.findall(r"([\d.]+)(ms|s|m|h|d)", text))


def size(text: str) -> float:
    """Bytes from "4096 MB"."""
    number, unit = text.split()
    return float(number) * SIZES[unit]


@dataclass
class Tally:
    """Sums of the sweep, and what was found wrong with the events."""

    joules: Floats
    on: Floats
    overloaded: Floats
    lost: Floats
    requested: Floats
    unserved: float = 0.0
    problems: list[str] = field(default_factory=list)


class Site:
    """Hosts, VMs and demand, read from the scenario and the trace."""

    def __init__(self, scenario: Mapping[str, Any], trace: Path) -> None:
        self.start = datetime.fromisoformat(str(scenario["start"])).timestamp()
        self.duration = seconds(scenario["duration"])
        self.step = seconds(scenario["load"]["step"])
        self.boot = seconds(scenario.get("power", {}).get("boot", "120s"))
        self.loss = scenario.get("migration", {}).get("cpu_loss", 0.1)
        self.limit_memory = scenario.get("memory", "enforced") == "enforced"
        self._read_hosts(scenario["hosts"])
        self._read_vms(scenario["flavours"], trace)

    def _read_hosts(self, groups: Iterable[Mapping[str, Any]]) -> None:
        rows = []
        for group in groups:
            first, stride = group.get("first", 0), group.get("step", 1)
            cpu = group["cores"] * group.get("speed", 1.0)
            for number in range(group["count"]):
                name = group["name"] % (first + number * stride)
                rows.append((name, cpu, size(group["memory"]), group["power_curve"]))
        self.host = {row[0]: index for index, row in enumerate(rows)}
        self.cpu = np.array([row[1] for row in rows])
        self.memory = np.array([row[2] for row in rows])
        self.curves: dict[tuple[float, ...], list[int]] = {}
        for index, row in enumerate(rows):
            self.curves.setdefault(tuple(row[3]), []).append(index)

    def _read_vms(self, flavours: Sequence[Mapping[str, Any]], trace: Path) -> None:
        files = sorted(path for path in trace.iterdir() if path.name[0] != ".")
        quarter = -(-len(files) // len(flavours))
        kinds = [flavours[index // quarter] for index in range(len(files))]
        self.vm = {path.name: index for index, path in enumerate(files)}
        self.vm_memory = np.array([size(kind["memory"]) for kind in kinds])
        percent = np.array([path.read_text().split() for path in files], dtype=float)
        self.demand: Floats = percent.T / 100 * np.array([kind["cpu"] for kind in kinds])

    def watts(self, use: Floats) -> Floats:
        """The draw of every host at its use."""
        drawn = np.zeros(len(use))
        for curve, hosts in self.curves.items():
            drawn[hosts] = np.interp(use[hosts], np.linspace(0, 1, len(curve)), curve)
        return drawn


class Sweep:
    """The site's state between events, and the sums over it."""

    def __init__(self, site: Site) -> None:
        self.site = site
        hosts, vms = len(site.cpu), len(site.vm)
        self.place = np.full(vms, -1)
        self.target = np.full(vms, -1)
        self.on = np.zeros(hosts, dtype=bool)
        self.booting_until = np.full(hosts, -1.0)
        joules, on, overloaded = (np.zeros(hosts) for _ in range(3))
        lost, requested = (np.zeros(vms) for _ in range(2))
        self.tally = Tally(joules, on, overloaded, lost, requested)

    def apply(self, at: float, event: Mapping[str, Any]) -> None:
        """One event changes the state."""
        kind = event["event"]
        if kind == "power":
            self._power(at, self.site.host[event["host"]], event["state"] == "on")
        elif kind == "place":
            self.place[self.site.vm[event["vm"]]] = self.site.host[event["host"]]
        elif kind in ("move_start", "move_end"):
            self._move(at, kind, event)

    def _power(self, at: float, host: int, on: bool) -> None:
        self.on[host] = on
        if on and at > 0:
            self.booting_until[host] = at + self.site.boot
        if not on and at > 0 and (self.place == host).any():
            self.tally.problems.append(f"{at:.0f}s: a host with VMs went off")

    def _move(self, at: float, kind: str, event: Mapping[str, Any]) -> None:
        vm, source = self.site.vm[event["vm"]], self.site.host[event["from"]]
        if self.place[vm] != source:
            self.tally.problems.append(f"{at:.0f}s: {event['vm']} is not on {event['from']}")
        self.target[vm] = self.site.host[event["to"]] if kind == "move_start" else -1
        if kind == "move_start":
            self._check_memory(at, event["to"])
        elif event["outcome"] == "done":
            self.place[vm] = self.site.host[event["to"]]
            if not self.on[self.place[vm]]:
                self.tally.problems.append(
                    f"{at:.0f}s: {event['vm']} arrived on a host that is off"
                )

    def _check_memory(self, at: float, name: str) -> None:
        host = self.site.host[name]
        charged = self.site.vm_memory[(self.place == host) | (self.target == host)].sum()
        if self.site.limit_memory and charged > self.site.memory[host]:
            self.tally.problems.append(f"{at:.0f}s: {name} has more than its memory")

    def run(self, begin: float, end: float) -> None:
        """Nothing changes between these times; they lie in one step of the load."""
        site, tally, span = self.site, self.tally, end - begin
        demand = site.demand[min(int(begin / site.step + 1e-9), len(site.demand) - 1)]
        asked = np.bincount(self.place, demand, minlength=len(site.cpu))
        served = np.minimum(asked, site.cpu)
        use = np.where(self.booting_until > begin, 1.0, served / site.cpu)
        moving = self.target >= 0
        tally.joules += np.where(self.on, site.watts(use), 0.0) * span
        tally.on += self.on * span
        tally.overloaded += (self.on & (asked > site.cpu * (1 + 1e-9))) * span
        tally.requested += demand * span
        tally.lost += demand * moving * site.loss * span
        tally.unserved += float(np.where(self.on, asked - served, asked).sum()) * span


def sweep(site: Site, events: Iterable[Mapping[str, Any]]) -> tuple[Tally, dict[str, int]]:
    """All events in time order, and the time between them."""
    state, counts = Sweep(site), {"migrations": 0, "power_offs": 0, "power_ons": 0}
    now = 0.0
    for event in events:
        at = datetime.fromisoformat(event["t"]).timestamp() - site.start
        now = _run_to(state, now, min(max(at, now), site.duration))
        state.apply(at, event)
        counts["migrations"] += event.get("outcome") == "done"
        if event["event"] == "power" and at > 0:
            counts["power_ons" if event["state"] == "on" else "power_offs"] += 1
    _run_to(state, now, site.duration)
    return state.tally, counts


def _run_to(state: Sweep, now: float, until: float) -> float:
    """Through the steps of the load, and through the ends of boots."""
    while now < until:
        edge = (int(now / state.site.step + 1e-9) + 1) * state.site.step
        boots = state.booting_until[state.booting_until > now]
        end = min([until, edge, *boots])
        state.run(now, end)
        now = end
    return until


def result(site: Site, events: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The score as one JSON object."""
    tally, counts = sweep(site, events)
    energy = float(tally.joules.sum()) / 3.6e6
    slatah, pdm = _mean_ratio(tally.overloaded, tally.on), _mean_ratio(tally.lost, tally.requested)
    on, overloaded = float(tally.on.sum()), float(tally.overloaded.sum())
    return {
        "energy_kwh": energy,
        "slatah": slatah,
        "pdm": pdm,
        "slav": slatah * pdm,
        "esv": energy * slatah * pdm,
        **counts,
        "mean_active_hosts": on / site.duration,
        "overload_host_seconds": overloaded,
        "overload_share": overloaded / on if on else 0.0,
        "unserved_core_seconds": tally.unserved,
        "problems": tally.problems[:20],
        "violations": len(tally.problems),
    }


def _mean_ratio(part: Floats, whole: Floats) -> float:
    counted = whole > 0
    return float((part[counted] / whole[counted]).mean()) if counted.any() else 0.0


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Score a run from its exported events.")
    parser.add_argument("events", type=Path)
    parser.add_argument("scenario", type=Path)
    parser.add_argument("--trace", type=Path, required=True)
    options = parser.parse_args()
    site = Site(tomllib.loads(options.scenario.read_text()), options.trace)
    events = (json.loads(line) for line in options.events.read_text().splitlines() if line)
    print(json.dumps(result(site, events), indent=2))


if __name__ == "__main__":
    main()
