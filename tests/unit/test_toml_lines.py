"""Where keys stand in a TOML document."""

import json
import tomllib
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DataObject

from balancerd.toml_lines import Path, lines_of

DOCUMENT = '''\
# a comment with [brackets] and = signs
title = "x"  # 2

[owner]  # 4
name = "a # no comment"
"odd.key" = 1
'literal "key"' = 2
a.b.c = 3

text = """
[not.a.header]
key = 1 \\""" still text
ends in quotes """""
after = true
[[host]]  # 15
name = 'h1'
tags = [ "a", # a comment with ] and "
  "b",
  { c = 1, d.e = [1, 2] },
]
[host.power]  # 21
on = "x"
[[host.disk]]
size = 1
[[host.disk]]
size = 2
[[host]]
name = "h2"
[[host.disk]]
size = 3
[ deep . "er" . x ]
y = 1979-05-27 07:32:00
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("title",), 2),
        (("owner",), 4),
        (("owner", "name"), 5),
        (("owner", "odd.key"), 6),
        (("owner", 'literal "key"'), 7),
        (("owner", "a"), 8),
        (("owner", "a", "b", "c"), 8),
        (("owner", "text"), 10),
        (("owner", "after"), 14),
        (("host",), 15),
        (("host", 0), 15),
        (("host", 0, "tags"), 17),
        (("host", 0, "tags", 0), 17),
        (("host", 0, "tags", 1), 18),
        (("host", 0, "tags", 2, "d", "e", 1), 19),
        (("host", 0, "power"), 21),
        (("host", 0, "power", "on"), 22),
        (("host", 0, "disk", 1, "size"), 26),
        (("host", 1, "name"), 28),
        (("host", 1, "disk", 0, "size"), 30),
        (("deep", "er", "x", "y"), 32),
    ],
)
def test_every_way_to_write_a_key_is_found(path: Path, line: int) -> None:
    assert lines_of(DOCUMENT)[path] == line


def test_windows_line_ends_count_once() -> None:
    assert lines_of("a = 1\r\nb = '''\r\n\r\n'''\r\nc = 3\r\n")["c",] == 5


def test_a_header_counts_more_than_the_table_below_it_that_came_first() -> None:
    assert lines_of("[a.b]\nx = 1\n[a]\ny = 2\n")["a",] == 3


@dataclass
class Writer:
    """Writes a document and notes the line of everything it writes."""

    text: str = ""
    lines: dict[Path, int] = field(default_factory=dict)

    def note(self, path: Path, *, again: bool = False) -> None:
        if again or path not in self.lines:
            self.lines[path] = self.text.count("\n") + 1

    def write(self, text: str) -> None:
        self.text += text


NASTY = st.text(alphabet="ab\"'#[]{}=,.\\ ü\t", max_size=8)
LINES = st.text(alphabet="ab\"'#[]{}=,.\\ \n", max_size=12)
GAP = st.sampled_from(["", "\n", "  \n", '# [a] = "\n', "\t# ]}'\n\n"])
BARE = st.text(alphabet="abcXYZ019_-", min_size=1, max_size=4)


def quoted_key(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)


def multi_line(text: str) -> str:
    return '"""' + text.replace("\\", "\\\\").replace('"""', '""\\"') + '"""'


def ends_well(text: str) -> str:
    return text.rstrip('"')


SCALAR = st.one_of(
    st.integers(-9, 99).map(str),
    st.sampled_from(["true", "1.5e3", "inf", "1979-05-27T07:32:00Z", "1979-05-27 07:32:00"]),
    NASTY.map(quoted_key),
    NASTY.map(lambda text: "'" + text.replace("'", "") + "'"),
    LINES.map(lambda text: multi_line(ends_well(text))),
    LINES.map(lambda text: multi_line(ends_well(text) + '""')),
    LINES.map(lambda text: "'''" + text.replace("'", "") + "'''"),
)


def write_value(writer: Writer, data: DataObject, path: Path, depth: int) -> None:
    kind = data.draw(st.sampled_from(["scalar", "list", "table"] if depth else ["scalar"]))
    if kind == "scalar":
        writer.write(data.draw(SCALAR))
    elif kind == "list":
        writer.write("[")
        for index in range(data.draw(st.integers(0, 3))):
            writer.write(data.draw(GAP))
            writer.note((*path, index))
            write_value(writer, data, (*path, index), depth - 1)
            writer.write(data.draw(GAP) + ",")
        writer.write(data.draw(GAP) + "]")
    else:
        writer.write("{ ")
        for index, key in enumerate(data.draw(st.lists(BARE, max_size=3, unique=True))):
            writer.write(", " if index else "")
            write_pair(writer, data, path, [key], depth - 1)
        writer.write(" }")


def write_pair(writer: Writer, data: DataObject, table: Path, key: list[str], depth: int) -> None:
    for end in range(1, len(key) + 1):
        writer.note((*table, *key[:end]))
    parts = [part if data.draw(st.booleans()) else quoted_key(part) for part in key]
    writer.write(data.draw(st.sampled_from([".", " . "])).join(parts))
    writer.write(data.draw(st.sampled_from(["=", " = "])))
    write_value(writer, data, (*table, *key), depth)


def write_pairs(writer: Writer, data: DataObject, table: Path) -> None:
    for first in data.draw(st.lists(BARE, max_size=4, unique=True)):
        rest = data.draw(st.lists(BARE, max_size=2))
        writer.write(data.draw(GAP))
        write_pair(writer, data, table, [first, *rest], depth=2)
        writer.write(data.draw(st.sampled_from(["\n", " # = [x]\n"])))


@settings(max_examples=50)
@given(st.data())
def test_the_line_of_every_key_of_any_document_is_known(data: DataObject) -> None:
    """Dies without the look-ahead for a fourth quote, and when a list's elements all get the
    line of its bracket."""
    writer = Writer()
    write_pairs(writer, data, ())
    for name in data.draw(st.lists(NASTY, max_size=3, unique=True)):
        key = "table " + name
        if data.draw(st.booleans()):
            writer.note((key,), again=True)
            writer.write(f"[{quoted_key(key)}]\n")
            write_pairs(writer, data, (key,))
            continue
        for index in range(data.draw(st.integers(1, 3))):
            writer.note((key,))
            writer.note((key, index))
            writer.write(f"[[ {quoted_key(key)} ]] # [[x]]\n")
            write_pairs(writer, data, (key, index))
            inner = (key, index, "in ner")
            writer.note(inner)
            writer.write(f'[{quoted_key(key)}."in ner"]\n')
            write_pairs(writer, data, inner)
    tomllib.loads(writer.text)
    assert lines_of(writer.text) == writer.lines
