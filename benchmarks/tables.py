"""Which benchmarks there are, what each needs, and what of its result goes into its table."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

DATA, TRACES = "BALANCERD_BENCH_DATA", "BALANCERD_BENCH_TRACES"
HERE = Path(__file__).parent
QUICK = bool(os.environ.get("QUICK"))
HOW = {
    DATA: "a directory with placement/*.json and rescheduling/*.json",
    TRACES: "a directory with a folder or archive for each day, as in "
    "https://github.com/beloglazov/planetlab-workload-traces",
}
Found = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table. `met`: whether the target was reached; None where there is none."""

    what: str
    reached: str
    target: str = ""
    met: bool | None = None


def at_most(what: str, value: float, limit: float, form: str = "{:.4g}") -> Row:
    """A row whose value should not be larger."""
    return Row(what, form.format(value), f"≤ {form.format(limit)}", value <= limit)


def table(rows: Iterable[Row]) -> list[str]:
    """The rows as a Markdown table."""
    lines = ["| measure | reached | target | |", "|---|---|---|---|"]
    marks = {True: "✓", False: "✗", None: ""}
    lines += [f"| {r.what} | {r.reached} | {r.target} | {marks[r.met]} |" for r in rows]
    return lines


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A script, the variable that says where its input is, and the files it is given of that."""

    name: str
    script: str
    rows: Callable[[Found], Iterator[Row]]
    needs: str = ""
    files: str = ""  # a glob below the input; "" gives the directory itself
    options: tuple[str, ...] = ()
    obstacle: Callable[[], str | None] = lambda: None  # what else keeps it from running here

    def missing(self) -> str:
        """What keeps it from running; "" if nothing does."""
        if obstacle := self.obstacle():
            return obstacle
        place = os.environ.get(self.needs, "") if self.needs else "here"
        if not place:
            return f"set {self.needs} to {HOW[self.needs]}"
        if self.needs and not self._inputs(place):
            return f"{self.needs}={place} has no {self.files}"
        return ""

    def arguments(self) -> list[str]:
        """What the script is given."""
        return [*self._inputs(os.environ.get(self.needs, "")), *self.options]

    def _inputs(self, place: str) -> list[str]:
        if not self.files:
            return [place] if place else []
        found = sorted(Path(place).glob(self.files), key=lambda path: path.stat().st_size)
        return [str(path) for path in (found[:1] if QUICK else found)]


def classic(found: Found) -> Iterator[Row]:
    """Medians over days against the targets, memory free."""
    middle, days = found["median"], len(found["days"])
    yield Row("days", str(days))
    yield at_most("energy / bound", middle["energy_to_bound"], 1.25, "{:.3f}")
    yield at_most("migrations per VM and day", middle["moves_per_vm"], 1.5, "{:.2f}")
    yield at_most("overloaded host-time", middle["overload_share"], 0.005, "{:.2%}")
    yield Row("energy, kWh", f"{middle['energy_kwh']:.1f}")
    yield Row("hosts on, mean", f"{middle['mean_active_hosts']:.1f}")
    yield Row("SLAV, ESV", f"{middle['slav']:.3g}, {middle['esv']:.3g}")
    yield at_most("CPU seconds for a day, on one core", middle["cpu_seconds"], 20.0, "{:.0f}")


def classic_enforced(found: Found) -> Iterator[Row]:
    """Medians over days against the targets, hosts full of memory."""
    middle = found["median"]
    yield Row("days", str(len(found["days"])))
    yield at_most("energy / floor of memory", middle["energy_to_floor"], 1.05, "{:.3f}")
    yield at_most("migrations per VM and day", middle["moves_per_vm"], 1.5, "{:.2f}")
    yield at_most("overloaded host-time", middle["overload_share"], 0.0, "{:.3%}")
    yield Row("energy, kWh", f"{middle['energy_kwh']:.1f}")
    yield Row("hosts on, mean", f"{middle['mean_active_hosts']:.1f}")


def scale(found: Found) -> Iterator[Row]:
    """What a cycle costs at each size, and how that grows."""
    for policy, result in found.items():
        for at in result["sizes"]:
            what, seconds = f"{policy}, {at['vms']:,} VMs", at["cpu_seconds"]
            yield at_most(f"{what}: decision, CPU seconds", at["decision_cpu_seconds"], 15.0)
            record = sum(seconds[part] for part in seconds if part.startswith("record"))
            yield Row(f"{what}: record, CPU seconds", f"{record:.3g}")
            yield at_most(f"{what}: memory, GiB", at["peak_rss_bytes"] / 2**30, 2.0)
        yield at_most(f"{policy}: decision grows as n to the", result["growth"], 1.2)


def baselines(found: Found) -> Iterator[Row]:
    """What each planner makes of the same day."""
    for name, result in found["planners"].items():
        yield Row(
            f"{found['day']}: {name}",
            f"{result['energy_kwh']:.1f} kWh, {result['energy_to_bound']:.2f} × bound; "
            f"{result['migrations']} migrations, {result['moves_per_vm']:.1f} per VM; "
            f"{result['overload_share']:.2%} of host-time overloaded",
        )


def placement(found: Found) -> Iterator[Row]:
    """Instances with optima of a solver: as good, in less time."""
    for name, result in found.items():
        best = result["optimum"]
        allowed = best * 1.02 if name.startswith("repair") else best
        yield at_most(f"{name}: objective (HiGHS: {best:g})", result["objective"], allowed, "{:g}")
        if "hosts_on" in result:
            yield Row(f"{name}: hosts on", str(result["hosts_on"]))
        seconds = result.get("highs_seconds", 5.0) / 5
        yield at_most(f"{name}: CPU seconds", result["cpu_seconds"], seconds, "{:.3f}")
        if "highs_here_seconds" in result:
            share = result["cpu_seconds"] / max(result["highs_here_seconds"], 1e-9)
            yield at_most(f"{name}: CPU seconds / HiGHS's in the same run", share, 0.2, "{:.3f}")


# By hosts: deviation, moves and CPU seconds to be reached.
EVEN: Mapping[str, tuple[float, int, float]] = {
    "balance-100": (0.12, 160, 0.05),
    "balance-1000": (0.16, 2500, 2.0),
}


def balance(found: Found) -> Iterator[Row]:
    """Deviation of hosts' memory in percent, moves, time."""
    for name, result in found.items():
        deviation, moves, seconds = EVEN.get(name.partition(",")[0], (inf, inf, inf))
        before = result["sd_before"]
        yield at_most(f"{name}: deviation, from {before:g}", result["sd_after"], deviation)
        yield at_most(f"{name}: moves", result["moves"], moves, "{:g}")
        yield at_most(f"{name}: CPU seconds", result["cpu_seconds"], seconds, "{:.2f}")
        if "moves_at_least" in result:
            yield Row(f"{name}: moves that no plan does without", f"{result['moves_at_least']:g}")


def stability(found: Found) -> Iterator[Row]:
    """What planning again says, moves on a day without trend, and in a month."""
    for policy, result in found.get("again", {}).items():
        what = f"{policy}: planning again"
        yield at_most(f"{what} after a plan, moves", result["after_all_of_it"], 0.0)
        yield at_most(f"{what} halfway, VMs moved twice", result["moved_twice"], 0, "{:g}")
        better = result["another_and_better"]
        yield at_most(f"{what} halfway, something else and better", better, 0.0, "{:.2%}")
        yield Row(f"{what} halfway, better by at most", f"{result['better_by_at_most']:.2%}")
        yield Row(f"{what} halfway, moves in all", f"{result['moves_in_all_to_planned']:.1%}")
    for policy, result in found.get("noise", {}).items():
        moves = result["moves"]
        yield at_most(f"{policy}: moves on a day of noise", sum(moves) / len(moves), 0.0)
    for policy, result in found.get("month", {}).items():
        what = f"{policy}, {result['days']} days"
        yield at_most(f"{what}: back within cool-down", result["back_within_cooldown"], 0, "{:g}")
        yield Row(f"{what}: moves per VM and day", f"{result['moves_per_vm_and_day']:.3f}")
        yield Row(f"{what}: overloaded host-time", f"{result['overload_share']:.3%}")


def forecast(found: Found) -> Iterator[Row]:
    """Errors of forecasts against those of the level alone."""
    for name, result in found.items():
        level, profile = result["level"], result["profile"]
        for key, what in (
            ("off", "each VM"),
            ("site_off", "all VMs"),
            ("pinball", "84 % quantile"),
        ):
            yield at_most(
                f"{name}: {what}, against the level's", profile[key], level[key], "{:.5f}"
            )
        for key, right in (("covered_by_1", "84 %"), ("covered_by_2", "98 %")):
            reached = f"{profile[key]:.1%} (level {level[key]:.1%})"
            yield Row(f"{name}: 20 VMs within {key[-1]} deviations", reached, right)


def rescheduling(found: Found) -> Iterator[Row]:
    """Fragment rate for each budget of moves, within 1 % of the proven optimum where there is."""
    for name, result in found.items():
        yield Row(f"{name}: before", f"{result['fragment_rate_before']:.4f}")
        for budget, reached in result.items():
            if not isinstance(reached, dict):
                continue
            rate, best = reached["fragment_rate"], reached.get("optimum")
            what = f"{name}: {budget} moves"
            if best is None:
                yield Row(what, f"{rate:.4f}")
            else:
                yield at_most(f"{what} (optimum {best:.4f})", rate, 1.01 * best, "{:.4f}")
            yield at_most(f"{what}: CPU seconds", reached["cpu_seconds"], 1.0, "{:.2f}")


def drain(found: Found) -> Iterator[Row]:
    """How long emptying hosts takes, against what the narrowest link needs for the bytes."""
    for name, result in found.items():
        took = f"{result['seconds']:.0f} s for {result['migrations']} migrations"
        yield Row(f"{name}: time", took)
        yield at_most(f"{name}: time / bound of the links", result["ratio"], 1.15, "{:.3f}")


def lab(found: Found) -> Iterator[Row]:
    """What balancerd costs on real hosts."""
    cost, settled, hung = found["overhead"], found["restart"], found["hung"]
    what = f"one VM, {len(cost['virsh'])} times each"
    yield Row(f"{what}: virsh migrate, seconds", f"{cost['virsh_seconds']:.2f}")
    yield Row(f"{what}: balancerd, seconds", f"{cost['balancerd_seconds']:.2f}")
    yield at_most(f"{what}: balancerd / virsh", cost["ratio"], 1.03, "{:.3f}")
    what = f"killed in mid-migration, {len(settled['each'])} times"
    yield at_most(f"{what}: seconds until settled", settled["settled_seconds"], 10, "{:.1f}")
    yield Row(f"{what}: the longest", f"{settled['longest_seconds']:.1f}")
    yield Row(f"{what}: CPU seconds of its own until then", f"{settled['cpu_seconds']:.1f}")
    what = "one libvirtd of three hangs"
    yield at_most(f"{what}: interval of cycles / before", hung["interval"]["ratio"], 1.1, "{:.3f}")
    yield at_most(f"{what}: work of a cycle / before", hung["work"]["ratio"], 1.1, "{:.3f}")
    yield Row(f"{what}: the cycle that finds out, seconds", f"{hung['longest_work_seconds']:.1f}")


def no_lab() -> str | None:
    """Why there are no real hosts here."""
    from tests.lab.rig import why_unavailable

    return why_unavailable()


BENCHMARKS = (
    Benchmark("placement", "placement.py", placement, DATA, "placement/[pr]*.json"),
    Benchmark("balance", "balance.py", balance, DATA, "placement/balance-*.json"),
    Benchmark("stability", "stability.py", stability),
    Benchmark("forecast", "forecast.py", forecast, TRACES),
    Benchmark("rescheduling", "rescheduling.py", rescheduling, DATA, "rescheduling/*.json"),
    Benchmark("drain", "drain.py", drain),
    Benchmark("lab", "lab.py", lab, obstacle=no_lab),
    Benchmark("classic", "classic.py", classic, TRACES),
    Benchmark(
        "classic-enforced",
        "classic.py",
        classic_enforced,
        TRACES,
        options=("--scenario", str(HERE / "classic-enforced.toml")),
    ),
    Benchmark("scale", "scale.py", scale),
    Benchmark("baselines", "baselines.py", baselines, TRACES),
)
