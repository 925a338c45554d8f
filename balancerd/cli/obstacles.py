"""What keeps balancerd from more: hosts that are not known or whose clocks are off, VMs that others
laid hands on, and what failed too often."""

from typing import Any

from balancerd.adapters.sqlite.past import recent_past
from balancerd.adapters.sqlite.reader import Reader
from balancerd.adapters.sqlite.values import Values
from balancerd.cli.in_force import policy_in_force
from balancerd.cli.output import Row
from balancerd.cli.words import duration
from balancerd.core.past.breakers import Breaker, State, breakers
from balancerd.core.past.history import History
from balancerd.core.policies.limits import Limits
from balancerd.core.units import format_time


def obstacles(reader: Reader, now: float) -> dict[str, list[Any]]:
    """What is in the way, by the policy that was last put in force."""
    values, policy = Values(reader.database), policy_in_force(reader)
    found: dict[str, list[Any]] = {"unknown": _unknown(reader, values)}
    if policy is None:
        return found
    history, limits = recent_past(reader.database, now), policy.at(now).limits
    return found | {
        "clocks": _wrong_clocks(reader, policy.limits),
        "vetoes": _vetoes(history, limits, reader.vms_on_draining_hosts(), now),
        "open_breakers": _open(history, limits, now),
    }


def _unknown(reader: Reader, values: Values) -> list[str]:
    """The hosts that nothing is known of, each with the reason."""
    cycle = reader.newest_cycle()
    snapshot = values.snapshot() if cycle and cycle.hosts_unknown else None
    gaps = snapshot.gaps if snapshot else ()
    return [f"{gap.name}: {gap.detail or gap.kind}" for gap in gaps if gap.subject == "host"]


def _wrong_clocks(reader: Reader, limits: Limits) -> list[str]:
    """The hosts whose clock is further from balancerd's than those of two hosts may be apart for
    VMs to move between them, as far as that is known."""
    shown = {item["name"]: item["clock_ahead_seconds"] or 0.0 for item in reader.hosts()}
    return [
        f"{host} is {duration(abs(ahead))} {'ahead' if ahead > 0 else 'behind'} (limits.clock_skew)"
        for host, ahead in shown.items()
        if abs(ahead) > limits.clock_skew
    ]


def _vetoes(history: History, limits: Limits, meant: frozenset[str], now: float) -> list[Row]:
    """Who drains a host means its VMs, whatever was done to them."""
    return [
        {"vm": vm, "what": deed.what, "until": format_time(deed.at + limits.veto)}
        for vm, deed in sorted(history.deeds.items())
        if deed.at + limits.veto > now and vm not in meant
    ]


def _open(history: History, limits: Limits, now: float) -> list[Row]:
    found = breakers(history, limits, now)
    named: list[tuple[str, str, Breaker]] = [
        *(("VM", vm, one) for vm, one in sorted(found.vms.items())),
        *(("pair", f"{a} > {b}", one) for (a, b), one in sorted(found.pairs.items())),
        *(("host", host, one) for host, one in sorted(found.hosts.items())),
        ("site", "", found.site),
    ]
    return [
        {
            "scope": scope,
            "name": name,
            "failures": one.failures,
            "until": format_time(one.until),
        }
        for scope, name, one in named
        if one.state is State.OPEN
    ]
