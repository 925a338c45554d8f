"""What an operator tells balancerd: pause, resume, approve, reject, drain, undrain, abort, hurry,
close.

All of it goes through the ledger. A pause is in force when the command returns, whether a daemon
runs or not; everything else is a request that the daemon answers.
"""

import getpass
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import click

from balancerd import places
from balancerd.adapters.sqlite import operator
from balancerd.adapters.sqlite.database import Access
from balancerd.adapters.sqlite.lock import is_locked
from balancerd.adapters.sqlite.reader import Reader
from balancerd.cli.errors import invalid, must_exist, not_running, refused
from balancerd.cli.record import WHOLE_NUMBER, opened, record_option
from balancerd.cli.words import moment
from balancerd.core.past.record import Pause, PlanState, Request, Verb
from balancerd.core.units import DAY, format_duration, parse_duration

Command = TypeVar("Command", bound=Callable[..., Any])
POLL_SECONDS = 0.1
NONE: Mapping[str, str] = MappingProxyType({})
LONGEST = 10 * 366 * DAY


def _who() -> str:
    """The operator's name for the audit, the one before `sudo` where that is known."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # a process whose user has no name
        return f"uid {os.getuid()}"


def _span(_: click.Context, __: click.Parameter, text: str | None) -> float | None:
    """Seconds from a duration as policies write it."""
    if text is None:
        return None
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    if not 0 < seconds < LONGEST:
        raise click.BadParameter("must be more than 0s and less than ten years")
    return seconds


def wait_option(command: Command) -> Command:
    """`--wait DURATION`, given to the command as `wait`."""
    return click.option(
        "--wait",
        callback=_span,
        default="10s",
        metavar="DURATION",
        show_default=True,
        help="How long to wait for the daemon's answer.",
    )(command)


@click.command()
@click.option(
    "--for", "span", callback=_span, metavar="DURATION", help="End it by itself, as in 2h."
)
@click.option("--reason", default="", help="Why, for those who find it paused.")
@record_option
def pause(span: float | None, reason: str, record: Path) -> None:
    """Start nothing more, from now on and across restarts; what runs goes on."""
    now = time.time()
    until = None if span is None else now + span
    with opened(record, Access.WRITE) as ledger:
        operator.begin_pause(ledger, Pause(at=now, by=_who(), reason=reason, until=until))
    end = "until `balancerctl resume`" if until is None else f"until {moment(until)}"
    click.echo(f"paused {end}; migrations under way go on")


@click.command()
@record_option
def resume(record: Path) -> None:
    """End a pause."""
    with opened(record, Access.WRITE) as ledger:
        ended = operator.end_pauses(ledger, time.time(), _who())
    click.echo("resumed" if ended else "nothing was paused")


@click.command()
@click.argument("plan", type=WHOLE_NUMBER)
@wait_option
@record_option
def approve(plan: int, wait: float, record: Path) -> None:
    """Let a plan that waits for approval be carried out."""
    _ask(record, Verb.APPROVE, str(plan), wait)


@click.command()
@click.argument("plan", type=WHOLE_NUMBER)
@wait_option
@record_option
def reject(plan: int, wait: float, record: Path) -> None:
    """Drop a plan that waits for approval."""
    _ask(record, Verb.REJECT, str(plan), wait)


@click.command()
@click.argument("host")
@wait_option
@record_option
def drain(host: str, wait: float, record: Path) -> None:
    """Empty a host for maintenance, and put nothing on it."""
    _ask(record, Verb.DRAIN, host, wait)


@click.command()
@click.argument("host")
@wait_option
@record_option
def undrain(host: str, wait: float, record: Path) -> None:
    """Give a drained host back."""
    _ask(record, Verb.UNDRAIN, host, wait)


@click.command()
@click.argument("vm")
@wait_option
@record_option
def abort(vm: str, wait: float, record: Path) -> None:
    """Give up the migration of a VM that is under way."""
    _ask(record, Verb.ABORT, vm, wait)


@click.command()
@click.argument("vm")
@click.option(
    "--force-complete",
    is_flag=True,
    help="Whatever pause it takes; in post-copy where policy and VM allow that.",
)
@wait_option
@record_option
def hurry(vm: str, force_complete: bool, wait: float, record: Path) -> None:
    """Let the migration of a VM end with the longest pause that the policy allows."""
    _ask(record, Verb.HURRY, vm, wait, {"force_complete": "yes"} if force_complete else {})


@click.command()
@click.argument("vm")
@wait_option
@record_option
def close(vm: str, wait: float, record: Path) -> None:
    """Conclude a migration whose end cannot be told, and leave the VM to you."""
    _ask(record, Verb.CLOSE, vm, wait)


def _ask(
    record: Path, verb: Verb, subject: str, wait: float, arguments: Mapping[str, str] = NONE
) -> None:
    """Leave a request and show its answer; CommandError where it is refused or nobody answers."""
    with opened(record, Access.WRITE) as ledger:
        reader = Reader(ledger)
        _check_subject(reader, verb, subject)
        if not is_locked(record):
            begin = " (systemctl start balancerd)" if record == places.STATE else ""
            raise not_running(
                f"balancerd does not run on {record}: nobody would {verb} {subject}{begin}"
            )
        _check_waits(reader, verb, subject)
        request = Request(0, time.time(), verb, subject, _who(), arguments)
        number = operator.ask(ledger, request)
        answer = _answer(reader, number, wait)
    if answer is None:
        raise not_running(
            f"request {number} ({verb} {subject}) is not answered after {format_duration(wait)}; "
            "it stays in the ledger"
        )
    accepted, detail = answer
    if not accepted:
        raise refused(f"{verb} {subject}: {detail}")
    click.echo(f"{subject}: {detail}")


def _check_subject(reader: Reader, verb: Verb, subject: str) -> None:
    """CommandError where there is no such thing, so that the daemon need not be asked."""
    if verb in (Verb.APPROVE, Verb.REJECT):
        if reader.plan_state(int(subject)) is None:
            raise invalid(f"there is no plan {subject} (see balancerctl plan list)")
    elif verb in (Verb.DRAIN, Verb.UNDRAIN):
        must_exist("host", subject, [str(item["name"]) for item in reader.hosts()])
    else:
        must_exist("VM", subject, [str(item["name"]) for item in reader.vms()])


def _check_waits(reader: Reader, verb: Verb, subject: str) -> None:
    """CommandError where a plan waits for nobody. Of one that was dropped, the daemon says why."""
    if verb not in (Verb.APPROVE, Verb.REJECT):
        return
    state = reader.plan_state(int(subject))
    if state not in (PlanState.PROPOSED, PlanState.SUPERSEDED):
        raise refused(f"{verb} {subject}: plan {subject} does not wait for approval, it is {state}")


def _answer(reader: Reader, request: int, wait: float) -> tuple[bool, str] | None:
    """What the daemon answered; None after waiting in vain."""
    deadline = time.monotonic() + wait
    while True:
        item = reader.request(request)
        if item and item["answered_at"]:
            return item["accepted"], item["answer"]
        if time.monotonic() > deadline:
            return None
        time.sleep(POLL_SECONDS)
