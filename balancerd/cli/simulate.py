"""`simulate` and `demo`: the production loop on a simulated site."""

import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from balancerd.adapters.sim.load import LoadError, Recorded, from_readings
from balancerd.adapters.sim.scenario import LoadKind, Scenario
from balancerd.adapters.sim.site import ScenarioError, Site, build
from balancerd.adapters.sqlite.database import Access, Database
from balancerd.adapters.sqlite.ledger import Ledger
from balancerd.adapters.sqlite.samples import SamplesStore
from balancerd.adapters.sqlite.samples_schema import SAMPLES
from balancerd.cli.errors import invalid
from balancerd.cli.output import Form, console, output_option_of, write_document
from balancerd.cli.record import reading
from balancerd.cli.result_view import draw_results, figures, progress
from balancerd.config import parse_policy
from balancerd.core.policies.policy import Policy
from balancerd.documents import load, read_text
from balancerd.places import SHIPPED_POLICIES
from balancerd.ports import LedgerError
from balancerd.simulation import Result, Watcher, without_balancing
from balancerd.simulation import simulate as live_through

DEMO = Path(__file__).parents[1] / "adapters" / "sim" / "demo.toml"
DEMO_RECORD = Path("record/demo")
SHORT_PLAN = 12  # moves; a plan to begin reading with
FILES = ("ledger.db", "samples.db")
_READINGS = """SELECT ticks.at, name, cpu_reference_cores
    FROM ticks CROSS JOIN readings ON readings.tick = ticks.id
    JOIN subjects ON subjects.id = subject
    WHERE kind = 'vm' ORDER BY ticks.at"""


@click.command()
@click.argument("scenario", metavar="SCENARIO.toml")
@click.option(
    "--policy",
    "policy_file",
    metavar="FILE",
    default=str(SHIPPED_POLICIES / "spread.toml"),
    help="The policy. [default: the shipped spread.toml]",
)
@click.option(
    "--trace",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Load in PlanetLab form: a file for each VM, a percentage a line.",
)
@click.option(
    "--record",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Keep the record there; without it, none is kept.",
)
@output_option_of(Form.JSON)
def simulate(
    scenario: str, policy_file: str, trace: Path | None, record: Path | None, form: Form
) -> None:
    """Live through a scenario as fast as the machine can, and print what came of it."""
    text = read_text(policy_file)
    policy, site = parse_policy(text, policy_file), _site(scenario, trace)
    with _record(record) as directory, progress(site.scenario) as watch:
        result = _run(site, policy, text, directory, watch)
    document = result.as_json()
    columns = {policy.name: figures(result.score, result)}
    write_document(document, form, lambda where: draw_results(where, columns))


@click.command()
@click.option(
    "--record",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help=f"Keep the record there. [default: {DEMO_RECORD}, replaced each time]",
)
def demo(record: Path | None) -> None:
    """Watch balancerd keep a simulated site of 40 hosts and 400 VMs for a day and its nights."""
    policy_file = SHIPPED_POLICIES / "power-saving.toml"
    text = read_text(policy_file)
    policy, site = parse_policy(text, policy_file), _site(str(DEMO), None)
    click.echo(f"{site.scenario.summary}.\nPolicy {policy_file.name}: {policy.summary}.\n")
    if record is None:
        _clear(DEMO_RECORD)
    with _record(record or DEMO_RECORD) as directory, progress(site.scenario) as watch:
        result = _run(site, policy, text, directory, watch)
    columns = {
        policy.name: figures(result.score, result),
        "no balancing": figures(without_balancing(site)),
    }
    draw_results(console(), columns)
    click.echo(f"\nThe record is in {directory}. Look at it, for example with")
    for command in next_commands(directory):
        click.echo(f"  {command}")


def next_commands(record: Path) -> list[str]:
    """What to try on the record of a demo, as it has to be typed here."""
    with reading(record) as reader:
        plans = reader.plans()
    short = [plan["id"] for plan in plans if 0 < plan["moves"] <= SHORT_PLAN]
    number = short[0] if short else 1
    place = f"--record {shlex.quote(str(record))}"
    verbs = ("hosts", f"plan show {number}", "migrations")
    return [f"{_program()} {verb} {place}" for verb in verbs]


def _program() -> str:
    """This program's name if a shell finds it by that, else the path by which it was called."""
    found, called = shutil.which("balancerctl"), Path(sys.argv[0])
    if found and called.exists() and Path(found).samefile(called):
        return "balancerctl"
    return shlex.quote(str(called)) if called.name == "balancerctl" else "balancerctl"


def _run(site: Site, policy: Policy, policy_text: str, record: Path, watch: Watcher) -> Result:
    """One run with its record written; nothing is forced to disk, it can be made again."""
    with (
        Ledger(record / "ledger.db", durable=False, site=site.scenario.name) as ledger,
        SamplesStore(record / "samples.db", durable=False) as samples,
    ):
        ledger.record_policy(policy.name, policy_text, site.scenario.start)
        return live_through(site, policy, ledger, samples, watch, batch=ledger.batch)


def _site(scenario: str, trace: Path | None) -> Site:
    """The site of a scenario file, with its load; CommandError where that cannot be."""
    found = load(scenario, Scenario)
    place = Path(scenario).absolute().parent / found.load.path
    source = found.load.model_copy(update={"path": str(place) if found.load.path else ""})
    try:
        wanted = source.kind is LoadKind.RECORDED and not trace
        recorded = _recorded(place, source.step) if wanted else None
        return build(found.model_copy(update={"load": source}), trace, recorded)
    except (LoadError, ScenarioError, LedgerError) as error:
        raise invalid(str(error)) from None


def _recorded(place: Path, step: float) -> Recorded:
    """The load that a record, or its samples.db, holds."""
    path = place / "samples.db" if place.is_dir() else place
    with Database(path, SAMPLES, Access.READ) as series:
        readings = [(at, vm, cpu) for at, vm, cpu in series.rows(_READINGS)]
    return from_readings(readings, step, str(path))


@contextmanager
def _record(directory: Path | None) -> Iterator[Path]:
    """A directory for a new record: the one that is asked for, or one that goes away again."""
    if directory is None:
        with tempfile.TemporaryDirectory(prefix="balancerd-") as name:
            yield Path(name)
        return
    if any((directory / name).exists() for name in FILES):
        raise invalid(f"{directory} holds a record already; give an empty directory")
    directory.mkdir(parents=True, exist_ok=True)
    yield directory


def _clear(directory: Path) -> None:
    """Remove the record of the last demo, and nothing else."""
    for name in FILES:
        for path in directory.glob(f"{name}*"):
            path.unlink()
