"""`status`: how things stand, in a few lines."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from balancerd.adapters.sqlite.reader import Reader, Status
from balancerd.cli.errors import Exit
from balancerd.cli.output import (
    Form,
    Row,
    again_and_again,
    output_option,
    watch_option,
    write_document,
)
from balancerd.cli.record import reading, record_option
from balancerd.cli.words import duration, moment
from balancerd.core.units import DAY, counted, format_time, parse_time

if TYPE_CHECKING:
    from rich.console import Console

UNKNOWN = OBJECTIONS = VETOES = BREAKERS = 5  # told in the table; a document has them all
LOOKED_BACK = 30 * DAY  # further than any rest or veto reaches
DOUBTED = (
    "its power driver said that it is off, and it answered; it is not put to sleep until that says"
    " that it is on: see whether power.state in the configuration asks about another machine"
)
NONE_IN_THE_WAY: Mapping[str, list[Any]] = {
    key: [] for key in ("unknown", "clocks", "vetoes", "open_breakers")
}


@click.command()
@watch_option
@output_option
@record_option
def status(watch: float | None, form: Form, record: Path) -> int:
    """Say whether balancerd runs, what it does, and what keeps it from more."""
    found: list[Status] = []

    def show() -> None:
        now = time.time()
        with reading(record) as reader:
            found[:] = [reader.status(now)]
            policy = reader.policy()
            document = _status_document(found[0], policy[0] if policy else "")
            document |= {**NONE_IN_THE_WAY, **_obstacles(reader, now)}
        write_document(document, form, lambda where: _draw_status(where, document, now))

    again_and_again(show, watch)
    return Exit.DONE if found and found[0].running else Exit.NOT_RUNNING


def _status_document(found: Status, policy: str) -> dict[str, Any]:
    cycle, pause = found.cycle, found.pause
    document: dict[str, Any] = {
        "running": found.running,
        "absent_since": None,
        "stopped": None,
        "policy": policy,
        "paused": pause is not None,
        "pause": None,
        "cycle": None,
        "actions_under_way": found.under_way,
        "requests_waiting": found.waiting,
        "draining": list(found.draining),
        "power_drivers": [f"{host}: {DOUBTED}" for host in found.doubted],
        "objections": list(found.objections),
        "unsettled": list(found.unsettled),
    }
    if found.absence:
        document["absent_since"] = format_time(found.absence.since)
        document["stopped"] = found.absence.announced
    if pause:
        document["pause"] = {
            "at": format_time(pause.at),
            "by": pause.by,
            "reason": pause.reason,
            "until": None if pause.until is None else format_time(pause.until),
        }
    if cycle:
        document["cycle"] = asdict(cycle) | {"at": format_time(cycle.at)}
    return document


def _obstacles(reader: Reader, now: float) -> Mapping[str, list[Any]]:
    """What is in the way. To find that takes the policy and the past, which are slow to load, so
    that it is first seen whether there is anything to be found."""
    if reader.is_untroubled(now - LOOKED_BACK):
        return {}
    from balancerd.cli.obstacles import obstacles

    return obstacles(reader, now)


def _draw_status(where: "Console", document: Row, now: float) -> None:
    running, style = ("running", "green") if document["running"] else ("not running", "red")
    where.print(f"balancerd is {running}", style=f"bold {style}")
    for name, words in _status_lines(document, now):
        where.print(f"{name:<11}{words}", soft_wrap=True)


def _status_lines(document: Row, now: float) -> Iterator[tuple[str, str]]:
    """What there is to say, each with a name."""
    pause, cycle = document["pause"], document["cycle"]
    if document["absent_since"]:
        yield _absence(document, now)
    if pause:
        until = f"until {moment(pause['until'])}" if pause["until"] else "until resumed"
        why = f": {pause['reason']}" if pause["reason"] else ""
        yield "PAUSED", f"by {pause['by']} since {moment(pause['at'])}, {until}{why}"
    if cycle is None:
        yield "cycle", "none completed yet"
        return
    if cycle["frozen"]:
        yield "FROZEN", cycle["frozen"]
    window = f', in the window "{cycle["window"]}"' if cycle["window"] else ""
    yield "policy", f"{document['policy']}: {cycle['mode']}, {cycle['objective']}{window}"
    ago = f", {duration(round(now - parse_time(cycle['at'])))} ago" if document["running"] else ""
    yield "cycle", f"{moment(cycle['at'])}{ago}, took {duration(cycle['seconds'])}"
    yield "", cycle["sentence"]
    hosts = (f"{cycle['hosts_on']} on", f"{cycle['hosts_asleep']} asleep")
    unknown = f", {cycle['hosts_unknown']} unknown" if cycle["hosts_unknown"] else ""
    yield "hosts", f"{', '.join(hosts)}{unknown}; {cycle['overloaded']} overloaded"
    for number, why in enumerate(document["unknown"][:UNKNOWN]):
        yield "" if number else "unknown", why
    for number, why in enumerate(document["clocks"][:UNKNOWN]):
        yield "" if number else "clocks", why
    for number, why in enumerate(document["power_drivers"][:UNKNOWN]):
        yield "" if number else "power", why
    yield "VMs", str(cycle["vms"])
    if document["draining"]:
        yield "draining", ", ".join(document["draining"])
    yield from _in_the_way(document)
    yield "under way", counted(document["actions_under_way"], "action")
    if document["requests_waiting"]:
        yield "requests", f"{document['requests_waiting']} wait for an answer"


def _absence(document: Row, now: float) -> tuple[str, str]:
    """Since when balancerd does not run."""
    since = document["absent_since"]
    at = f"{moment(since)}, {duration(round(now - parse_time(since)))} ago"
    if document["stopped"]:
        return "stopped", at
    return "SILENT", f"since {at}: it ended without a word, as if it was killed"


def _in_the_way(document: Row) -> Iterator[tuple[str, str]]:
    """What waits for people, and what is left alone."""
    for number, said in enumerate(document["unsettled"]):
        yield "" if number else "UNSETTLED", said
    for number, said in enumerate(document["objections"][:OBJECTIONS]):
        yield "" if number else "objections", said
    for number, veto in enumerate(document["vetoes"][:VETOES]):
        until = f"left alone until {moment(veto['until'])}"
        yield "" if number else "vetoes", f"{veto['vm']}: somebody {veto['what']}; {until}"
    for number, rest in enumerate(document["open_breakers"][:BREAKERS]):
        name = f"{rest['scope']} {rest['name']}".rstrip()
        failed = f"failed {counted(rest['failures'], 'time')}"
        yield "" if number else "resting", f"{name}: {failed}; rests until {moment(rest['until'])}"
