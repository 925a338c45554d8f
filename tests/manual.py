"""The parts of the manual pages that are made from the program: `python -m tests.manual`.

Each stands between `.\\" begin NAME` and `.\\" end NAME`, as those of README do between theirs.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import click
from pydantic import BaseModel

from balancerd.config import Configuration
from balancerd.core.policies.policy import Policy
from balancerd.core.policies.tags import VOCABULARY
from balancerd.daemon import main as daemon
from balancerd.keys import Key, keys_of
from tests.docs import commands, usage

PAGES = Path(__file__).parents[1] / "man"


def escaped(text: str) -> str:
    """Text as groff prints it: what is special to it is not, and a hyphen can be searched for."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
    return re.sub(r"^([.'])", r"\\&\1", text, flags=re.MULTILINE)


def entry(title: str, text: str) -> str:
    """A term in bold, and what it means."""
    return f'.TP\n.B "{escaped(title)}"\n{escaped(text)}'


def verbs() -> str:
    """Every verb of balancerctl with its options."""
    return "\n".join(_verb(words, command) for words, command in commands())


def _verb(words: str, command: click.Command) -> str:
    lines = [f'.SS "{escaped(usage(words, command))}"', escaped(_unwrapped(command.help or ""))]
    return "\n".join([*lines, *options(command)])


def _unwrapped(text: str) -> str:
    """Paragraphs of a docstring, each on one line."""
    return "\n.PP\n".join(" ".join(part.split()) for part in text.strip().split("\n\n"))


def options(command: click.Command) -> Iterator[str]:
    """The options of a command, each with what its help says, but not those of all verbs."""
    context = click.Context(command)
    for option in command.params:
        record = option.get_help_record(context) if isinstance(option, click.Option) else None
        if record and not _is_common(option):
            yield entry(*record)


def _is_common(option: click.Parameter) -> bool:
    """Whether the page tells of the option once for all verbs."""
    forms = option.type.choices if isinstance(option.type, click.Choice) else ()
    return option.name == "record" or (option.name == "form" and "table" in forms)


def keys(model: type[BaseModel]) -> str:
    """The keys of a document."""
    return "\n".join(entry(f"{key.path} = {_value(key)}", _meaning(key)) for key in keys_of(model))


def _value(key: Key) -> str:
    return key.kind.replace('"', "")


def _meaning(key: Key) -> str:
    default = f"default {key.default}" if key.default else ""
    more = "required" if key.required else default
    return f"{key.meaning}{f' ({more})' if more else ''}."


def tags() -> str:
    """What VMs may say of themselves."""
    return "\n".join(
        entry(f"{key}={tag.value}", f"{tag.meaning}.") for key, tag in VOCABULARY.items()
    )


def generated() -> Mapping[str, Mapping[str, str]]:
    """The generated parts of each page, by their names."""
    return {
        "balancerctl.1": {"verbs": verbs()},
        "balancerd.8": {"options": "\n".join(options(daemon))},
        "balancerd.toml.5": {"configuration keys": keys(Configuration)},
        "balancerd-policy.5": {"policy keys": keys(Policy), "tags": tags()},
    }


def made(text: str, parts: Mapping[str, str]) -> str:
    """A page with its generated parts put in."""
    for name, content in parts.items():
        begin, end = f'.\\" begin {name}\n', f'.\\" end {name}\n'
        head, _, rest = text.partition(begin)
        _, mark, tail = rest.partition(end)
        if not mark:
            raise SystemExit(f'a page has no part "{name}"')
        text = f"{head}{begin}{content}\n{end}{tail}"
    return text


def main() -> None:
    """Put the generated parts into the pages."""
    for page, parts in generated().items():
        path = PAGES / page
        path.write_text(made(path.read_text(), parts))


if __name__ == "__main__":
    main()
