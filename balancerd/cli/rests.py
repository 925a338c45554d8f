"""What is left alone just now: VMs that others laid hands on, and what failed too often."""

from balancerd.adapters.sqlite.reader import Reader
from balancerd.cli.output import Row
from balancerd.core.past.breakers import Breaker, State, breakers
from balancerd.core.past.history import History
from balancerd.core.policies.limits import Limits
from balancerd.core.units import format_time


def rests(reader: Reader, now: float) -> tuple[list[Row], list[Row]]:
    """The vetoes in force and the open breakers, by the policy that was last put in force."""
    history = reader.history(now)
    if reader.policy() is None or not (history.deeds or history.moves):
        return [], []
    from balancerd.cli.decision import recorded_policy  # the whole planner comes with it

    limits = recorded_policy(reader).at(now).limits
    return _vetoes(history, limits, reader.vms_on_draining_hosts(), now), _open(
        history, limits, now
    )


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
