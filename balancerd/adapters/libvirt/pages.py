"""Huge pages: what a definition wants, and what a host has free.

They lie in a pool of their own, which the host's free memory does not tell of. Of a definition
that names no size, the host's default is meant; libvirt does not tell it, so any size will do.
"""

from collections.abc import Iterator, Mapping
from typing import Any
from xml.etree.ElementTree import Element

import libvirt

from balancerd.adapters.libvirt.definition import bytes_of, nodes_of
from balancerd.adapters.libvirt.xml import number, parse
from balancerd.core.observation import Pages

KIB = 1024


def pages(definition: str, connection: libvirt.virConnect, capabilities: str) -> tuple[Pages, ...]:
    """What a VM wants in huge pages, and what of it the host has free; () where it wants none, or
    the host does not tell. libvirtError when the host fails."""
    wanted = huge_pages(parse(definition))
    if not wanted:
        return ()
    try:
        free = _free(connection, parse(capabilities))
    except libvirt.libvirtError:
        if not connection.isAlive():
            raise
        return ()
    most = max(free.values(), default=0)
    return tuple(
        Pages(size, needed, free.get(size, 0) if size else most) for size, needed in wanted.items()
    )


def huge_pages(domain: Element) -> Mapping[int, int]:
    """Bytes that are to lie in huge pages, by the pages' size in bytes; 0: of no named size."""
    wanted: dict[int, int] = {}
    asked = domain.find("memoryBacking/hugepages")
    if asked is None:
        return wanted
    total = bytes_of(domain.find("memory"))
    named = 0
    for page in asked.iterfind("page"):
        cells = page.get("nodeset")
        needed = total - named if cells is None else _of_cells(domain, cells)
        size = number(page.get("size")) * bytes_of_unit(page)
        wanted[size] = wanted.get(size, 0) + needed
        named += needed
    return wanted or {0: total}


def bytes_of_unit(page: Element) -> int:
    """Bytes in the unit of a page's size, KiB where none is written."""
    unit = Element("size", {"unit": page.get("unit", "KiB")})
    unit.text = "1"
    return bytes_of(unit)


def _of_cells(domain: Element, cells: str) -> int:
    """Bytes of the guest's NUMA nodes of these numbers."""
    chosen = set(nodes_of(cells))
    return sum(
        number(cell.get("memory")) * bytes_of_unit(cell)
        for cell in domain.iterfind("cpu/numa/cell")
        if number(cell.get("id"), -1) in chosen
    )


def _free(connection: libvirt.virConnect, capabilities: Element) -> Mapping[int, int]:
    """Bytes free in huge pages, by their size, on all NUMA nodes together."""
    sizes = sorted({number(page.get("size")) for page in capabilities.iterfind("host/cpu/pages")})
    huge: Any = sizes[1:]  # the smallest are ordinary ones; annotated as text, but a list
    cells = max(1, len(capabilities.findall("host/topology/cells/cell")))
    if not huge:
        return {}
    found = connection.getFreePages(huge, 0, cells, 0)
    return {
        size * KIB: sum(cell.get(size, 0) for cell in _cells(found)) * size * KIB for size in huge
    }


def _cells(found: object) -> Iterator[Mapping[int, int]]:
    """libvirt's answer: by cell, by size in KiB, the number of pages."""
    if isinstance(found, dict):
        yield from found.values()
