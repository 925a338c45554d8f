"""The command `balancerctl`: its verbs, and the one place where an error becomes an exit code."""

import io
import os
import sys
import traceback
from collections.abc import Sequence

import click

from balancerd.cli.errors import CommandError, Exit
from balancerd.cli.group import Group, Verbs
from balancerd.ports import LedgerError

VERBS: Verbs = {
    "status": ("status", "Say whether balancerd runs, what it does, and what keeps it from more."),
    "hosts": ("hosts", "List the hosts with load and verdict, and how far their clocks are off."),
    "vms": ("vms", "List the VMs with their host and load."),
    "plan": ("plans", "Make plans, and look at those that were made."),
    "why": ("why", "Say why a VM moves, or stays where it is, with the numbers."),
    "why-not": (
        "why",
        "Say everything that keeps a VM off a host, and the smallest change that would let it.",
    ),
    "history": ("history", "List what balancerd and its operators did, newest first."),
    "audit": ("audit", "See whether the record is as it was written."),
    "migrations": (
        "history",
        "List migrations, newest first: predicted and actual figures, and how they ended.",
    ),
    "report": (
        "report",
        "Compare what was predicted of migrations with what they took, method by method.",
    ),
    "snapshot": (
        "snapshot",
        "Print the site as last observed, as a cluster file that other commands take.",
    ),
    "export": ("export", "Print the whole story as events in the order of time."),
    "simulate": (
        "simulate",
        "Live through a scenario as fast as the machine can, and print what came of it.",
    ),
    "demo": (
        "simulate",
        "Watch balancerd keep a simulated site of 40 hosts and 400 VMs for a day and its nights.",
    ),
    "policy": ("policy", "Check policy files, and list the keys they may have."),
    "pause": (
        "requests",
        "Start nothing more, from now on and across restarts; what runs goes on.",
    ),
    "resume": ("requests", "End a pause."),
    "approve": ("requests", "Let a plan that waits for approval be carried out."),
    "reject": ("requests", "Drop a plan that waits for approval."),
    "drain": ("requests", "Empty a host for maintenance, and put nothing on it."),
    "undrain": ("requests", "Give a drained host back."),
    "abort": ("requests", "Give up the migration of a VM that is under way."),
    "hurry": (
        "requests",
        "Let the migration of a VM end with the longest pause that the policy allows.",
    ),
    "close": (
        "requests",
        "Conclude a migration whose end cannot be told, and leave the VM to you.",
    ),
}


@click.group(
    cls=Group,
    verbs=VERBS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 failed, 2 usage or invalid input, 3 daemon not running, "
    "4 refused for safety.",
)
@click.version_option(package_name="balancerd", prog_name="balancerctl")
def root() -> None:
    """Look at what balancerd does, and tell it what to do."""


def command() -> None:
    """The command line of this process."""
    _open_what_is_closed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that cannot show an arrow gets a "?"
            stream.reconfigure(errors="replace")
    sys.exit(run(sys.argv[1:]))


def _open_what_is_closed() -> None:
    """What somebody closed before he called us, nobody reads: it goes nowhere, and no file of ours
    is taken for it."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
            setattr(sys, name, os.fdopen(number, "w" if number else "r"))


def run(arguments: Sequence[str]) -> int:
    """Run one command line; its exit code. Whatever goes wrong is one sentence on stderr."""
    try:
        result = _invoke(list(arguments))
        sys.stdout.flush()
        return int(result or Exit.DONE)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except (BrokenPipeError, SystemExit) as ended:
        if not _is_of_a_pipe(ended):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.DONE
    except (click.Abort, KeyboardInterrupt):
        click.echo("balancerctl: interrupted", err=True)
        return Exit.FAILED
    except Exception as error:  # noqa: BLE001 - a traceback would tell an operator nothing
        message, code = _told(error)
        click.echo(message, err=True)
        return code


def _invoke(arguments: list[str]) -> int | None:
    """What a verb returns. `main` of click would make an exit code of a closed pipe."""
    if "_BALANCERCTL_COMPLETE" in os.environ:  # set by a shell that completes a command line
        root.main(arguments, prog_name="balancerctl")
    with root.make_context("balancerctl", arguments) as context:
        code: int | None = root.invoke(context)
        return code


def _is_of_a_pipe(ended: BaseException) -> bool:
    """Whether whoever read our output has seen enough; rich turns that into an exit."""
    return isinstance(ended, BrokenPipeError) or isinstance(ended.__context__, BrokenPipeError)


def _told(error: Exception) -> tuple[str, int]:
    """What to say of an error, and the exit code."""
    match error:
        case CommandError():
            message, code = str(error), error.code
        case click.exceptions.NoArgsIsHelpError():
            return error.format_message(), Exit.INVALID
        case click.UsageError():
            help_for = " ".join(error.ctx.command_path.split() if error.ctx else ["balancerctl"])
            message = f"{error.format_message().rstrip('.')} (see {help_for} --help)"
            code = Exit.INVALID
        case LedgerError():
            message, code = str(error), Exit.FAILED
        case OSError():
            message = f"{error.filename or 'output'}: {error.strerror or error}"
            code = Exit.FAILED
        case _ if _is_of_a_file(error):
            return str(error), Exit.INVALID
        case _:
            message, code = _fault(error), Exit.FAILED
    return f"balancerctl: {message}", code


def _is_of_a_file(error: Exception) -> bool:
    """Whether it says what is wrong with a file: each of its lines begins with the file's name."""
    from balancerd.core.files.codec import CodecError
    from balancerd.documents import DocumentError

    return isinstance(error, DocumentError | CodecError)


def _fault(error: Exception) -> str:
    if os.environ.get("BALANCERD_DEBUG"):
        traceback.print_exception(error)
    what = f"{type(error).__name__}: {error}"
    return f"this is a fault in balancerctl ({what}); BALANCERD_DEBUG=1 tells more"
