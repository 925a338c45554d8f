"""The parts of documents that are made from the program: `python -m tests.docs` puts them there.

Each stands between `<!-- begin NAME -->` and `<!-- end NAME -->`.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from balancerd.cli.root import VERBS, root
from balancerd.config import Configuration
from balancerd.core.policies.policy import Policy
from balancerd.core.policies.tags import VOCABULARY
from balancerd.keys import markdown

ROOT = Path(__file__).parents[1]
README, POLICIES = ROOT / "README.md", ROOT / "policies" / "README.md"


def commands(group: click.Group = root, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command with its words, groups replaced by what is in them."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, f"{name} cannot be loaded"
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


def usage(words: str, command: click.Command) -> str:
    """A command with its arguments and its own options, as in a manual's synopsis."""
    pieces = [words]
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            pieces.append(parameter.make_metavar(click.Context(command)))
        elif isinstance(parameter, click.Option) and parameter.name not in ("form", "record"):
            pieces.append(
                f"[{_option(parameter)}]" if not parameter.required else _option(parameter)
            )
    return " ".join(pieces)


def _option(option: click.Option) -> str:
    longest = max(option.opts, key=len)
    return longest if option.is_flag else f"{longest} {option.metavar or option.name.upper()}"


def verbs() -> str:
    """A table of all commands."""
    lines = ["| command | does |", "|---|---|"]
    for words, command in commands():
        synopsis = usage(words, command).replace("|", "\\|")
        lines.append(f"| `{synopsis}` | {command.get_short_help_str(200).rstrip('.')} |")
    return "\n".join(lines)


def tags() -> str:
    """A table of what VMs may say of themselves."""
    lines = ["| tag | value | means |", "|---|---|---|"]
    lines += [f"| `{key}` | {tag.value} | {tag.meaning} |" for key, tag in VOCABULARY.items()]
    return "\n".join(lines)


def generated() -> Mapping[tuple[Path, str], str]:
    """Each generated part by its document and name."""
    return {
        (README, "verbs"): verbs(),
        (README, "tags"): tags(),
        (README, "configuration keys"): markdown(Configuration),
        (POLICIES, "policy keys"): markdown(Policy),
    }


def part(name: str) -> re.Pattern[str]:
    """What matches a generated part of a document; its group is the content."""
    mark = re.escape(name)
    return re.compile(rf"<!-- begin {mark} -->\n(.*?)\n<!-- end {mark} -->", re.DOTALL)


def main() -> None:
    """Put the generated parts into the documents."""
    for (document, name), content in generated().items():
        block = f"<!-- begin {name} -->\n{content}\n<!-- end {name} -->"
        text, count = part(name).subn(block.replace("\\", r"\\"), document.read_text())
        if count != 1:
            raise SystemExit(f'{document} has {count} parts "{name}"')
        document.write_text(text)


if __name__ == "__main__":
    assert VERBS
    main()
