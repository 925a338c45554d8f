"""XML from a host, read with suspicion: part of it was written by tenants.

No document type, so no entities of any kind; a limit on size, depth and number of elements.
Namespaces become part of the tag, as "{uri}name".
"""

from collections.abc import Iterator
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

SIZE_AT_MOST = 2**20  # characters; a large VM's definition has about 2**16
DEPTH_AT_MOST = 64
ELEMENTS_AT_MOST = 20_000
NODES_AT_MOST = 1024  # NUMA nodes that a document may name in one go

_UNITS = {"b": 1, "bytes": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_UNITS |= {"k": 2**10, "kib": 2**10, "m": 2**20, "mib": 2**20, "g": 2**30, "gib": 2**30}
_UNITS |= {"t": 2**40, "tib": 2**40, "": 2**10}


class XMLError(ValueError):
    """A document that is refused, and why, in one sentence."""


class _Reader:
    """Builds the tree and refuses what goes over a limit."""

    def __init__(self) -> None:
        self._builder = TreeBuilder()
        self._depth = self._elements = 0

    def refuse_doctype(self, *_declaration: object) -> None:
        raise XMLError("it declares a document type")

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        self._elements += 1
        if self._depth > DEPTH_AT_MOST:
            raise XMLError(f"it is nested more than {DEPTH_AT_MOST} deep")
        if self._elements > ELEMENTS_AT_MOST:
            raise XMLError(f"it has more than {ELEMENTS_AT_MOST} elements")
        self._builder.start(_qualified(tag), {_qualified(k): v for k, v in attributes.items()})

    def end(self, tag: str) -> None:
        self._depth -= 1
        self._builder.end(_qualified(tag))

    def text(self, text: str) -> None:
        self._builder.data(text)

    def tree(self) -> Element:
        return self._builder.close()


def _qualified(name: str) -> str:
    """Expat's "uri}name" as ElementTree writes it."""
    return "{" + name if "}" in name else name


def parse(document: str) -> Element:
    """The document's root element; XMLError when it is refused or is not XML."""
    if len(document) > SIZE_AT_MOST:
        raise XMLError(f"it is longer than {SIZE_AT_MOST} characters")
    reader, parser = _Reader(), expat.ParserCreate(namespace_separator="}")
    parser.StartDoctypeDeclHandler = reader.refuse_doctype
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    parser.buffer_text = True
    try:
        parser.Parse(document, True)  # noqa: FBT003  expat knows no keywords
    except expat.ExpatError as error:
        raise XMLError(f"it is not well-formed: {error}") from None
    except UnicodeEncodeError:
        raise XMLError("it is not text") from None
    return reader.tree()


def attribute(element: Element | None, name: str) -> str:
    """An attribute's text, "" where the element or the attribute is missing."""
    return "" if element is None else element.get(name, "")


def number(text: str | None, default: int = 0) -> int:
    """A whole number as libvirt writes it, or the default where there is none."""
    try:
        return int((text or "").strip())
    except ValueError:
        return default


def in_bytes(amount: str | None, unit: str) -> int:
    """An amount in one of libvirt's units, KiB where none is written."""
    return number(amount) * _UNITS.get(unit.lower(), 2**10)


def bytes_of(element: Element | None) -> int:
    """A size with its unit; 0 where there is no element."""
    return 0 if element is None else in_bytes(element.text, element.get("unit", ""))


def nodes_of(nodeset: str) -> Iterator[int]:
    """The numbers of a set as libvirt writes it: "0-2,4,^1"."""
    wanted, barred = set[int](), set[int]()
    for part in nodeset.split(","):
        first, _, last = part.strip().removeprefix("^").partition("-")
        low = number(first, -1)
        chosen = range(low, number(last or first, -1) + 1)
        if low >= 0 and len(chosen) <= NODES_AT_MOST:
            (barred if part.strip().startswith("^") else wanted).update(chosen)
    yield from sorted(wanted - barred)
