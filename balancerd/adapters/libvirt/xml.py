"""XML from a host, read with suspicion: part of it was written by tenants.

No document type, so no entities of any kind; a limit on size, depth and number of elements.
Namespaces become part of the tag, as "{uri}name".
"""

from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

SIZE_AT_MOST = 2**20  # characters; a large VM's definition has about 2**16
DEPTH_AT_MOST = 64
ELEMENTS_AT_MOST = 20_000


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
