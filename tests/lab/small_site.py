"""Guests and policies for a whole balancerd on the lab's hosts, and what they are asked at the end.

Guests are small and hosts have one CPU, so that a few guests overload one. Every test ends with
the same question: does each guest run on exactly one host, and did its counter go on?
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Any

import libvirt

from tests.lab.rig import Guest, GuestSpec, Load, Rig
from tests.lab.service import MEMORY_OF_ONE_GUEST, Service, policy


def busy(percent: int, memory_mib: int = 128) -> GuestSpec:
    return GuestSpec(memory_mib=memory_mib, load=Load(cpu_percent=percent))


def unharmed(*guests: Guest) -> None:
    """Each runs on one host, never booted again, never missed or doubled a beat.

    A half of a guest whose migration failed may stand there until libvirt has cleared it away. On
    a busy machine a guest may wait for its CPU for longer than any migration lets it stand still.
    """

    def alone(guest: Guest) -> bool:
        return len(guest.where()) == 1

    for guest in guests:
        guest.rig.wait_for(partial(alone, guest), 60, f"one copy of {guest.name}")
        counter = guest.counter()
        assert (counter.boots, counter.holes, counter.doubles) == (1, 0, 0), guest.name
        assert counter.largest_gap_s < 10, guest.name


def full(rig: Rig) -> dict[str, Guest]:
    """Two guests on h1 that hold more of its memory than the policy wants; h2 and h3 are empty."""
    guests = rig.start_all({name: ("h1", busy(3, memory_mib=512)) for name in ("a", "b")})
    for guest in guests.values():
        guest.reset_gap()
    return guests


def relief(**more: Any) -> str:
    """A policy that wants one of the two elsewhere."""
    return policy("quiet", memory=MEMORY_OF_ONE_GUEST, **more)


def the_only_one(running: Service) -> dict[str, Any]:
    """The migration, where there was no other."""
    (found,) = running.migrations()
    return found


def is_copied(guest: Guest) -> bool:
    """Whether a migration of it is well under way."""
    found: list[int] = []
    with suppress(libvirt.libvirtError):
        found.append(
            guest.rig.host("h1").ask(
                lambda c: c.lookupByName(guest.name).jobStats().get("data_processed", 0)
            )
        )
    return any(bytes_ > 8e6 for bytes_ in found)


def settled(running: Service) -> None:
    """Wait until no migration is under way."""
    running.until(
        lambda: all(m["ended_at"] for m in running.migrations()), 120, "end of all migrations"
    )
