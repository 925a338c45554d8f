"""Groups of verbs, as all of balancerctl's are: told in full, a wrong word with its nearest."""

import click

from balancerd.complaints import nearest


class Group(click.Group):
    """Verbs, each with the whole of its sentence."""

    def sentences(self, context: click.Context) -> list[tuple[str, str]]:
        """Each verb with its sentence."""
        commands = ((name, self.get_command(context, name)) for name in self.list_commands(context))
        return [(name, found.get_short_help_str(limit=1000)) for name, found in commands if found]

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Sentences on as many lines as they take."""
        with formatter.section("Commands"):
            formatter.write_dl(self.sentences(context))

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
