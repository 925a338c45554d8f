"""Huge pages, out of definitions and of hosts' answers."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from balancerd.adapters.libvirt.pages import huge_pages, pages, pools
from balancerd.adapters.libvirt.xml import parse
from balancerd.core.model import HugePages
from balancerd.core.observation import Pages
from balancerd.core.units import GIB, MIB

CAPABILITIES = """<capabilities><host><cpu>
<pages unit='KiB' size='4'/><pages unit='KiB' size='2048'/><pages unit='KiB' size='1048576'/>
</cpu><topology><cells num='2'><cell id='0'>
<pages unit='KiB' size='4'>16000</pages><pages unit='KiB' size='2048'>1024</pages>
<pages unit='KiB' size='1048576'>0</pages></cell><cell id='1'>
<pages unit='KiB' size='4'>16000</pages><pages unit='KiB' size='2048'>512</pages>
<pages unit='KiB' size='1048576'>0</pages></cell></cells></topology></host>
</capabilities>"""
NUMA = """<cpu><numa><cell id='0' memory='1' unit='GiB'/><cell id='1' memory='3' unit='GiB'/>
</numa></cpu>"""


def domain(backing: str) -> str:
    return (
        f"<domain><memory unit='GiB'>4</memory><memoryBacking>{backing}</memoryBacking>"
        f"{NUMA}</domain>"
    )


@pytest.mark.parametrize(
    ("backing", "wanted"),
    [
        ("", {}),
        ("<hugepages/>", {0: 4 * GIB}),
        ("<hugepages><page size='2048'/></hugepages>", {2 * MIB: 4 * GIB}),
        ("<hugepages><page size='1' unit='G'/></hugepages>", {GIB: 4 * GIB}),
        ("<hugepages><page size='2' unit='M' nodeset='1'/></hugepages>", {2 * MIB: 3 * GIB}),
        (
            "<hugepages><page size='1' unit='G' nodeset='0'/><page size='2' unit='M'/></hugepages>",
            {GIB: GIB, 2 * MIB: 3 * GIB},
        ),
    ],
)
def test_a_definition_says_how_much_lies_in_pages_of_which_size(
    backing: str, wanted: Mapping[int, int]
) -> None:
    found = huge_pages(parse(domain(backing)))
    assert {pages.size: pages.memory for pages in found} == wanted


def test_what_a_host_has_set_aside_is_told_for_all_of_its_nodes_together() -> None:
    assert pools(parse(CAPABILITIES)) == (HugePages(2 * MIB, 3 * GIB),)


class Answering:
    """A host with free pages by cell and size, as libvirt tells them."""

    def getFreePages(  # noqa: N802  libvirt's name
        self, sizes: Sequence[int], start: int, count: int, _flags: int
    ) -> Mapping[int, Mapping[int, int]]:
        free = {0: {2048: 512, 1048576: 1}, 1: {2048: 1024, 1048576: 2}}
        return {cell: {s: free[cell][s] for s in sizes} for cell in range(start, start + count)}


@pytest.mark.parametrize(
    ("backing", "found"),
    [
        ("<hugepages><page size='2' unit='M'/></hugepages>", Pages(2 * MIB, 4 * GIB, 3 * GIB)),
        ("<hugepages/>", Pages(0, 4 * GIB, 3 * GIB)),
        ("<hugepages><page size='64'/></hugepages>", Pages(64 * 1024, 4 * GIB, 0)),
    ],
)
def test_a_host_is_asked_what_it_has_free_on_all_its_nodes(backing: str, found: Pages) -> None:
    """Dies if one node counts for the host, or if ordinary pages count."""
    host: Any = Answering()
    assert pages(domain(backing), host, CAPABILITIES) == (found,)
