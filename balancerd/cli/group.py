"""Groups of verbs, as all of balancerctl's are: told in full, a wrong word with its nearest.

A verb's module is imported when it is called: neither `status` nor `--help` should wait for the
planner.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click
from click.shell_completion import CompletionItem

from balancerd.nearest import nearest

Verbs = Mapping[str, tuple[str, str]]


class Group(click.Group):
    """Verbs, each with its place ("module", or "module:function" where that is not called as the
    verb is) and the whole of its sentence; in the order of the table."""

    def __init__(self, *args: Any, verbs: Verbs, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.verbs = verbs

    def list_commands(self, _: click.Context) -> list[str]:
        """All verbs."""
        return list(self.verbs)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        """The command of a verb."""
        if name not in self.verbs:
            return None
        place, _, function = self.verbs[name][0].partition(":")
        module = import_module(f"balancerd.cli.{place}")
        command = getattr(module, function or name.replace("-", "_"))
        assert isinstance(command, click.Command)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Verbs and options that begin like this."""
        verbs = [
            CompletionItem(name, help=sentence)
            for name, (_, sentence) in self.verbs.items()
            if name.startswith(incomplete)
        ]
        return [*verbs, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        """Sentences on as many lines as they take."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, sentence) for name, (_, sentence) in self.verbs.items()])

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, but with the nearest verb for one that does not exist."""
        word, known = arguments[0], self.list_commands(context)
        if word not in known and not word.startswith("-"):
            group = f"{context.info_name} " if context.parent else ""
            raise click.UsageError(
                f'there is no verb "{group}{word}"{nearest(word, known)}', context
            )
        return super().resolve_command(context, arguments)
