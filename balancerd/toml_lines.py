"""On which line of a TOML document each key and list element stands.

`tomllib` tells values without their places, so an error found after reading could not say where.
This scanner walks a document that `tomllib` has accepted: it may trust the syntax, needs no values,
and only has to keep strings, brackets and comments apart.
"""

import re
import tomllib
from bisect import bisect_left

Path = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
# Three quotes end a multi-line string only if no fourth follows: the string may end in quotes.
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?!")'
    r"|'''.*?'''(?!')"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}#\n]*")


def lines_of(text: str) -> dict[Path, int]:
    """The line (from 1) of every key, table and list element; `text` must be valid TOML.

    A table stands where its header stands, or its first key if it has none. In an array of tables,
    and in a list, elements are numbered from 0: ("host", 2, "name").
    """
    return _Scanner(text.replace("\r\n", "\n")).document()


class _Scanner:
    """A position in a text, and what was found up to it."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        self.breaks = [match.start() for match in re.finditer("\n", text)]
        self.found: dict[Path, int] = {}
        self.counts: dict[Path, int] = {}  # elements of each array of tables so far

    def document(self) -> dict[Path, int]:
        """Scan everything."""
        table: Path = ()
        while self.next() is not None:
            if self.next() == "[":
                table = self.header()
            else:
                self.pair(table)
        return self.found

    def next(self) -> str | None:
        """The next character that is neither space nor comment; None at the end."""
        self.take(_BLANK)
        return self.text[self.at] if self.at < len(self.text) else None

    def take(self, pattern: re.Pattern[str]) -> str:
        """What the pattern matches here, stepped over."""
        match = pattern.match(self.text, self.at)
        if match is None:  # only a text that tomllib would have refused
            raise ValueError(f"not TOML at character {self.at}")
        self.at = match.end()
        return match[0]

    def line(self) -> int:
        """The line of the position."""
        return bisect_left(self.breaks, self.at) + 1

    def key(self) -> list[str]:
        """A key with its dots taken apart."""
        parts = [self.part()]
        while self.next() == ".":
            self.at += 1
            parts.append(self.part())
        return parts

    def part(self) -> str:
        """One part of a dotted key, unquoted."""
        if self.next() not in ('"', "'"):
            return self.take(_BARE)
        return str(tomllib.loads(f"key = {self.take(_STRING)}")["key"])

    def header(self) -> Path:
        """`[a.b]` or `[[a.b]]`: the path of the table that begins here."""
        line, brackets = self.line(), 2 if self.text.startswith("[[", self.at) else 1
        self.at += brackets
        *outer, last = self.key()
        self.next()
        self.at += brackets
        path: Path = ()
        for part in outer:
            path = self.current((*path, part))
            self.found.setdefault(path, line)
        path = (*path, last)
        if brackets == 2:
            self.counts[path] = self.counts.get(path, 0) + 1
            self.found.setdefault(path, line)
        path = self.current(path)
        self.found[path] = line
        return path

    def current(self, path: Path) -> Path:
        """The path itself, or the newest element where it is an array of tables."""
        return (*path, self.counts[path] - 1) if path in self.counts else path

    def pair(self, table: Path) -> None:
        """`key = value`."""
        line = self.line()
        path = table
        for part in self.key():
            path = (*path, part)
            self.found.setdefault(path, line)
        self.next()
        self.at += 1  # the equals sign
        self.value(path)

    def value(self, path: Path) -> None:
        """A value of any kind; what it contains is found, too."""
        match self.next():
            case "[":
                self.elements(path)
            case "{":
                self.inline_table(path)
            case '"' | "'":
                self.take(_STRING)
            case _:
                self.take(_SCALAR)

    def elements(self, path: Path) -> None:
        """`[a, b, ]`."""
        self.at += 1
        index = 0
        while self.next() != "]":
            self.found[*path, index] = self.line()
            self.value((*path, index))
            self.comma()
            index += 1
        self.at += 1

    def inline_table(self, path: Path) -> None:
        """`{ a = 1, b.c = 2 }`."""
        self.at += 1
        while self.next() != "}":
            self.pair(path)
            self.comma()
        self.at += 1

    def comma(self) -> None:
        """Step over a comma if there is one."""
        if self.next() == ",":
            self.at += 1
