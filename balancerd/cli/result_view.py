"""What came of simulated runs, side by side, and how far a run is."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from balancerd.adapters.sim.scenario import Scenario
from balancerd.adapters.sim.score import Score
from balancerd.cli.output import Column, Listing, Row, draw
from balancerd.cli.words import duration, size
from balancerd.core.past.record import Cycle
from balancerd.simulation import Result, Watcher

if TYPE_CHECKING:
    from rich.console import Console

SILENT_STEP = 0.25  # share of a run between two lines where there is no terminal


def figures(score: Score, result: Result | None = None) -> dict[str, str]:
    """What a person wants to know of a run, in words; `result` where balancerd ran."""
    told = {
        "energy": f"{score.energy_kwh:.1f} kWh",
        "hosts on, mean": f"{score.mean_active_hosts:.1f}",
        "overloaded host time": f"{score.overload_share:.2%}",
        "demand not served": f"{score.unserved_share:.3%}",
        "rules broken": str(score.violations),
        "migrations": f"{score.migrations} ({score.moves_per_vm:.2f} for each VM)",
        "data copied": size(score.bytes_moved),
        "hosts sent to sleep": str(score.power_offs),
        "hosts woken": str(score.power_ons),
    }
    if result:
        told |= {
            "plans": str(result.plans),
            "time to plan, 99%": f"{result.plan_seconds_p99:.3f}s",
            "time in all": duration(result.wall_seconds),
        }
    return told


def draw_results(where: "Console", runs: Mapping[str, Mapping[str, str]]) -> None:
    """A table with a column for each run, which is named by its key."""
    first = next(iter(runs.values()))
    rows: list[Row] = [
        {"figure": name, **{run: told.get(name, "") for run, told in runs.items()}}
        for name in first
    ]
    columns = [Column("", lambda row: row["figure"])]
    columns += [Column(run.upper(), _cell(run), right=True) for run in runs]
    draw(where, Listing(rows, columns, empty=""))


def _cell(run: str) -> Any:
    return lambda row: row[run]


@contextmanager
def progress(scenario: Scenario) -> Iterator[Watcher]:
    """Show on stderr how far a run is: a bar on a terminal, else a line now and then."""
    if not sys.stderr.isatty():
        yield _Lines(scenario)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.fields[clock]}"),
        BarColumn(),
        TextColumn("{task.fields[what]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=1.0, clock=_clock(scenario, 0.0), what="")

        def watch(share: float, cycle: Cycle) -> None:
            bar.update(task, completed=share, clock=_clock(scenario, share), what=_what(cycle))

        yield watch


class _Lines:
    """A line for each quarter of the run."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario, self._next = scenario, 0.0

    def __call__(self, share: float, cycle: Cycle) -> None:
        """Called after each cycle."""
        if share >= self._next:
            self._next += SILENT_STEP
            click.echo(f"{_clock(self._scenario, share)}  {_what(cycle)}", err=True)


def _clock(scenario: Scenario, share: float) -> str:
    """The time of the scenario, counted from its start."""
    minutes = round(share * scenario.duration / 60)
    return f"day {minutes // 1440 + 1} {minutes // 60 % 24:02}:{minutes % 60:02}"


def _what(cycle: Cycle) -> str:
    asleep = f", {cycle.hosts_asleep} asleep" if cycle.hosts_asleep else ""
    place = f" ({cycle.window})" if cycle.window else ""
    return f"{cycle.objective}{place}: {cycle.hosts_on} hosts on{asleep}"
