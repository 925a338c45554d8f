"""`plan graph`: a plan as a drawing."""

import json
import shutil
import subprocess
from enum import StrEnum
from pathlib import Path

import click

from balancerd.cli.decision import Source, source_options
from balancerd.cli.record import WHOLE_NUMBER, reading
from balancerd.cli.recorded import recorded_plan
from balancerd.core.explain import as_dot, as_svg, graph_of_hosts, graph_of_moves
from balancerd.core.plan import Plan

LAYOUT_SECONDS = 20  # that Graphviz may take, which is not made for thousands of moves


class Picture(StrEnum):
    """The forms of a drawing."""

    DOT = "dot"
    SVG = "svg"
    JSON = "json"


@click.command()
@click.argument("number", metavar="[ID]", type=WHOLE_NUMBER, required=False)
@click.option("--hosts", is_flag=True, help="Hosts and what moves between them, not the order.")
@click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice([picture.value for picture in Picture]),
    default=Picture.DOT.value,
    show_default=True,
    help="Form of the drawing; svg is laid out by Graphviz where that is installed.",
)
@source_options
def graph(
    number: int | None,
    hosts: bool,
    form: str,
    snapshot: str | None,
    policy: str | None,
    record: Path,
) -> None:
    """Draw a plan, or the newest: its waves and what waits for what, or host by host."""
    made = _plan(number, Source(record, snapshot, policy))
    drawn = graph_of_hosts(made) if hosts else graph_of_moves(made)
    match Picture(form):
        case Picture.DOT:
            click.echo(as_dot(drawn))
        case Picture.SVG:
            click.echo(_laid_out(as_dot(drawn)) or as_svg(drawn))
        case Picture.JSON:
            nodes = [
                {"key": n.key, "layer": n.layer, "text": " ".join(n.lines)} for n in drawn.nodes
            ]
            edges = [{"from": a, "to": b, "text": text} for a, b, text in drawn.edges]
            click.echo(json.dumps({"nodes": nodes, "edges": edges}, indent=2))


def _plan(number: int | None, source: Source) -> Plan:
    """The plan of the record, or the one made of a cluster file."""
    if source.snapshot or source.policy:
        return source.decision(number).plan
    with reading(source.record) as reader:
        return recorded_plan(reader, source.record, number)[1]


def _laid_out(dot: str) -> str | None:
    """What Graphviz makes of it; None where that is not installed, or makes nothing in time."""
    program = shutil.which("dot")
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, "-Tsvg"],
            input=dot,
            capture_output=True,
            text=True,
            timeout=LAYOUT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.rstrip("\n")
