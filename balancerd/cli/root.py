"""The command `balancerctl`: its verbs, and the one place where an error becomes an exit code."""

import io
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from importlib import import_module

import click

from balancerd.cli.errors import CommandError, Exit
from balancerd.complaints import nearest
from balancerd.core.files.codec import CodecError
from balancerd.documents import DocumentError
from balancerd.ports import LedgerError

# Where each verb is. A module is imported when one of its verbs is called: `status` should not
# wait for the planner.
VERBS: Mapping[str, str] = {
    "status": "status",
    "hosts": "site",
    "vms": "site",
    "plan": "plans",
    "why": "why",
    "why-not": "why",
    "history": "history",
    "audit": "audit",
    "migrations": "history",
    "report": "report",
    "snapshot": "export",
    "export": "export",
    "simulate": "simulate",
    "demo": "simulate",
    "policy": "policy",
    "pause": "requests",
    "resume": "requests",
    "approve": "requests",
    "reject": "requests",
    "drain": "requests",
    "undrain": "requests",
    "abort": "requests",
    "hurry": "requests",
}


class Verbs(click.Group):
    """The group of all verbs, each loaded when it is needed."""

    def list_commands(self, _: click.Context) -> list[str]:
        """In the order of the table, which goes from looking to acting."""
        return list(VERBS)

    def get_command(self, _: click.Context, name: str) -> click.Command | None:
        """The command of a verb."""
        if name not in VERBS:
            return None
        module = import_module(f"balancerd.cli.{VERBS[name]}")
        command = getattr(module, name.replace("-", "_"))
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        """Each verb with the whole of its sentence, on as many lines as that takes."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, _sentence(self, name)) for name in VERBS])

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, but with the nearest verb for one that does not exist."""
        word = arguments[0]
        if word not in VERBS and not word.startswith("-"):
            raise click.UsageError(
                f'there is no verb "{word}"{nearest(word, list(VERBS))}', context
            )
        return super().resolve_command(context, arguments)


@click.command(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 failed, 2 usage or invalid input, 3 daemon not running, "
    "4 refused for safety.",
)
@click.version_option(package_name="balancerd", prog_name="balancerctl")
def root() -> None:
    """Look at what balancerd does, and tell it what to do."""


def _sentence(verbs: Verbs, name: str) -> str:
    command = verbs.get_command(click.Context(verbs), name)
    assert command is not None
    return command.get_short_help_str(limit=1000)


def main() -> None:
    """The command of the package."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that cannot show an arrow gets a "?"
            stream.reconfigure(errors="replace")
    sys.exit(run(sys.argv[1:]))


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
        case DocumentError() | CodecError():  # each line begins with the file it is about
            return str(error), Exit.INVALID
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
        case _:
            message, code = _fault(error), Exit.FAILED
    return f"balancerctl: {message}", code


def _fault(error: Exception) -> str:
    if os.environ.get("BALANCERD_DEBUG"):
        traceback.print_exception(error)
    what = f"{type(error).__name__}: {error}"
    return f"this is a fault in balancerctl ({what}); BALANCERD_DEBUG=1 tells more"
