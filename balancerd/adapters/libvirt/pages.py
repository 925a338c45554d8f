"""Huge pages: what a definition wants, and what a host has, in all and free.

They lie in pools of their own, which the host's free memory does not tell of. Of a definition
that names no size, the host's default is meant; libvirt does not tell it, so any size will do.
"""

from collections.abc import Iterator, Mapping
from typing import Any
from xml.etree.ElementTree import Element

import libvirt

from balancerd.adapters.libvirt.xml import bytes_of, in_bytes, nodes_of, number, parse
from balancerd.core.model import HugePages
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
        Pages(want.size, want.memory, free.get(want.size, 0) if want.size else most)
        for want in wanted
    )


def huge_pages(domain: Element) -> tuple[HugePages, ...]:
    """What of a domain's memory is to lie in huge pages, by their size."""
    wanted: dict[int, int] = {}
    asked = domain.find("memoryBacking/hugepages")
    if asked is None:
        return ()
    total = bytes_of(domain.find("memory"))
    named = 0
    for page in asked.iterfind("page"):
        cells = page.get("nodeset")
        needed = total - named if cells is None else _of_cells(domain, cells)
        size = in_bytes(page.get("size"), page.get("unit", ""))
        wanted[size] = wanted.get(size, 0) + needed
        named += needed
    return tuple(HugePages(*one) for one in sorted(wanted.items())) or (HugePages(0, total),)


def pools(capabilities: Element) -> tuple[HugePages, ...]:
    """All huge pages that a host has on its NUMA nodes together, in use or not, by their size."""
    found: dict[int, int] = {}
    for count in capabilities.iterfind("host/topology/cells/cell/pages"):
        size = in_bytes(count.get("size"), count.get("unit", ""))
        found[size] = found.get(size, 0) + number(count.text) * size
    huge = sorted(found.items())[1:]  # the smallest are ordinary ones
    return tuple(HugePages(size, memory) for size, memory in huge if memory)


def _of_cells(domain: Element, cells: str) -> int:
    """Bytes of the guest's NUMA nodes of these numbers."""
    chosen = set(nodes_of(cells))
    return sum(
        in_bytes(cell.get("memory"), cell.get("unit", ""))
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
