"""The configuration file: what the machines are, as against what the operator wants of them.

`/etc/balancerd/balancerd.toml` holds facts (hosts, links, paths, intervals), a policy the will.
The classes are the schema. There is no secret in the file: libvirt and the power commands find
their own.
"""

import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from balancerd import places
from balancerd.core.policies.choices import Engine
from balancerd.core.policies.policy import Policy
from balancerd.core.policies.quantity import Duration, Rate, Schema, Size, Text, Zone, refuse
from balancerd.core.units import DAY, HOUR, format_duration
from balancerd.documents import DocumentError, parse, read_text
from balancerd.nearest import nearest
from balancerd.toml_lines import lines_of

SOLVER = "highspy"  # what the engines "exact" and "shadow" need; an extra of the package


def _uri(text: str) -> str:
    try:
        parts = urlsplit(text)
        secret, _ = parts.password is not None, parts.port
    except ValueError:
        hint = ": write an IPv6 address in brackets" if "::" in text and "[" not in text else ""
        raise ValueError(f'"{text}" is not a URI{hint}') from None
    if secret:
        raise ValueError("must not contain a password: there are no secrets in this file")
    if not parts.scheme or "://" not in text:
        raise ValueError(f'"{text}" is not a URI; write for example "qemu+ssh://root@h1/system"')
    return text


def _cron(text: str) -> str:
    # Imported here: the command line reads configurations, too, and has no use for a scheduler.
    from apscheduler.triggers.cron import CronTrigger

    fields = text.split()
    if len(fields) == 5 and any(letter.isdigit() for letter in fields[4].partition("/")[0]):
        raise ValueError(
            'weekdays must be written as names ("sun", "mon-fri"): '
            "whether 0 means Sunday or Monday differs from cron to cron"
        )
    try:
        trigger = CronTrigger.from_crontab(text, timezone="UTC")
    except ValueError as error:
        raise ValueError(
            f'"{text}" is not a cron expression ({str(error).lower()}); '
            'write for example "30 3 * * sun"'
        ) from None
    if trigger.get_next_fire_time(None, datetime(2024, 1, 1, tzinfo=UTC)) is None:
        raise ValueError(f'"{text}" never comes')
    return text


def _path(path: Path) -> Path:
    if path == Path():
        raise ValueError("must not be empty")
    return path


def _interval(seconds: float) -> float:
    if not 1 <= seconds <= HOUR:
        raise ValueError(f"must be from 1s to 1h, not {format_duration(seconds)}")
    return seconds


def _curve(points: tuple[float, ...]) -> tuple[float, ...]:
    if len(points) < 2:
        raise ValueError("needs the watts at 0 % and at 100 % of CPU at least")
    return points


Uri = Annotated[str, AfterValidator(_uri)]
Cron = Annotated[str, AfterValidator(_cron)]
Interval = Annotated[Duration, AfterValidator(_interval)]
Watts = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Curve = Annotated[tuple[Watts, ...], AfterValidator(_curve)]
Command = Annotated[tuple[Text, ...], Field(min_length=1)]
ORDERS = ("on", "off", "state")  # the keys of a host's power commands
FilePath = Annotated[Path, AfterValidator(_path)]


class PowerCommands(Schema):
    """Commands that switch one host: lists of words, run without a shell. They may hold secrets,
    and are shown nowhere."""

    on: Command = Field(description='switches the host on; "{host}" in a word is its name')
    off: Command = Field(description="asks the host to shut down gracefully")
    state: Command = Field(
        description="tells whether the host is on; believed while it calls none off that answers"
    )
    answer: Literal["output", "exit code"] = Field(
        "output",
        description='`state` prints a line with "on" or "off" at one of its ends, as ipmitool '
        "does, or exits with 0 for on and 2 for off, as fence agents do",
    )
    timeout: Annotated[Duration, Field(gt=0)] = Field(
        60.0, description="a command that takes longer has failed"
    )

    def naming(self, host: str) -> Self:
        """The same commands with the host's name wherever they say "{host}"."""
        return self.model_copy(
            update={
                key: tuple(word.replace("{host}", host) for word in getattr(self, key))
                for key in ORDERS
            }
        )


class HostEntry(Schema):
    """One hypervisor machine."""

    name: Text = Field(description="what balancerd calls the host everywhere")
    uri: Uri = Field(description="libvirt URI, as virsh takes it")
    migration_uri: Uri | None = Field(
        None, description='address at which it receives migrations, as in "tcp://10.9.0.1"'
    )
    peer_uri: Uri | None = Field(
        None, description="libvirt URI by which other hosts reach it; without it, `uri`"
    )
    rack: str = Field("", description="failure and network domain")
    speed: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        1.0, description="reference cores that one of its cores is worth"
    )
    power_curve: Text | Curve | None = Field(
        None, description="name of a `[curve]`, or watts at equal steps of CPU from 0 to 100 %"
    )
    tls_name: str = Field(
        "", description="name in its certificate, where `migration_uri` has an address"
    )
    memory: Annotated[Size, Field(gt=0)] | None = Field(
        None, description="what may be counted on; without it, all that the host says it has"
    )
    protected: bool = Field(
        default=False, description="never put to sleep, as the host that runs balancerd"
    )
    power: PowerCommands | None = None

    @field_validator("power")
    @classmethod
    def _by_name(cls, power: PowerCommands | None, info: ValidationInfo) -> PowerCommands | None:
        return power and power.naming(info.data.get("name", ""))


class LinkEntry(Schema):
    """A network link between hosts, racks, or other nodes such as a switch."""

    a: Text = Field(description="one end")
    b: Text = Field(description="the other end")
    bandwidth: Annotated[Rate, Field(gt=0)] = Field(description="each way")

    @model_validator(mode="after")
    def _two_ends(self) -> Self:
        if self.a == self.b:
            raise ValueError(f'leads from "{self.a}" to itself')
        return self


class Storage(Schema):
    """What every host of the site reaches."""

    shared: tuple[Text, ...] = Field(
        (), description="path prefixes of disks that are the same bytes on every host"
    )


class Retention(Schema):
    """How long the record keeps what."""

    samples: Duration = Field(2 * DAY, description="samples as they were taken")
    five_minutes: Duration = Field(30 * DAY, description="samples rolled up to 5 minutes")
    hours: Duration = Field(730 * DAY, description="samples rolled up to an hour")
    ledger: Duration = Field(730 * DAY, description="plans, migrations, events")


class Configuration(Schema):
    """The configuration file. Paths are absolute once it was read by `parse_configuration`."""

    site: Text = Field(description="name of the site")
    state_directory: FilePath = Field(
        places.STATE, description="where `ledger.db` and `samples.db` are"
    )
    policy: FilePath = Field(description="the policy's file; relative to this one")
    cycle: Interval = Field(30.0, description="time from one cycle to the next")
    maintenance: Cron = Field(
        "30 3 * * *",
        description="when the record is rolled up, pruned and copied, as cron expression; "
        "migrations under way are waited for, and what was missed is made up for",
    )
    timezone: Zone = Field("UTC", description="IANA time zone of `maintenance`")
    tls: bool = Field(
        default=True, description="migrations are encrypted; false only on a network you trust"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least severity that is logged"
    )
    storage: Storage = Storage()
    retention: Retention = Retention()
    curve: Mapping[str, Curve] = Field(
        {}, description="power curves by name: watts at equal steps of CPU from 0 to 100 %"
    )
    host: Annotated[tuple[HostEntry, ...], Field(min_length=1)]
    link: tuple[LinkEntry, ...] = ()

    @field_validator("host")
    @classmethod
    def _hosts_differ(
        cls, hosts: tuple[HostEntry, ...], info: ValidationInfo
    ) -> tuple[HostEntry, ...]:
        curves = info.data.get("curve", {})
        refuse(
            [
                *_twice("name", [host.name for host in hosts]),
                *_twice("uri", [host.uri for host in hosts]),
                *(
                    (
                        (index, "uri"),
                        f'to the other hosts, "{host.uri}" means themselves: write a peer_uri, too',
                    )
                    for index, host in enumerate(hosts)
                    if len(hosts) > 1 and not host.peer_uri and _means_whoever_reads_it(host.uri)
                ),
                *_commands_twice(hosts),
                *(
                    (
                        (index, "power_curve"),
                        f'there is no [curve] "{name}"{nearest(name, tuple(curves))}',
                    )
                    for index, host in enumerate(hosts)
                    if isinstance(name := host.power_curve, str) and name not in curves
                ),
            ]
        )
        return hosts

    @field_validator("link")
    @classmethod
    def _links_lead_somewhere(
        cls, links: tuple[LinkEntry, ...], info: ValidationInfo
    ) -> tuple[LinkEntry, ...]:
        hosts: Iterable[HostEntry] = info.data.get("host", ())
        known = sorted({name for host in hosts for name in (host.name, host.rack) if name})
        ends = Counter(end for link in links for end in {link.a, link.b})
        refuse(
            [
                (
                    (index, key),
                    f'"{end}" is neither a host nor a rack, and no other link leads to it'
                    + nearest(end, known),
                )
                for index, link in enumerate(links)
                for key, end in (("a", link.a), ("b", link.b))
                if known and end not in known and ends[end] < 2
            ]
        )
        return links

    def curve_of(self, host: HostEntry) -> tuple[float, ...]:
        """The host's draw in watts at equal steps of CPU use; empty where none is known."""
        if isinstance(host.power_curve, str):
            return self.curve[host.power_curve]
        return host.power_curve or ()


def _means_whoever_reads_it(uri: str) -> bool:
    """Whether a URI leads to the machine on which it is read, whichever that is."""
    parts = urlsplit(uri)
    local = parts.hostname in (None, "localhost", "127.0.0.1", "::1")
    return local and not parts.scheme.startswith("test")  # libvirt's own test driver has no peers


def _twice(key: str, values: list[str]) -> list[tuple[tuple[str | int, ...], str]]:
    first = {value: index for index, value in reversed(list(enumerate(values)))}
    return [
        ((index, key), f'host[{first[value]}] has the {key} "{value}", too')
        for index, value in enumerate(values)
        if first[value] != index
    ]


def _commands_twice(hosts: Sequence[HostEntry]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Power commands that two hosts share: one of them would be taken for off as the other is,
    or shut down in its place."""
    first: dict[tuple[str, tuple[str, ...]], int] = {}
    for index, host in enumerate(hosts):
        for key in ORDERS if host.power else ():
            other = first.setdefault((key, getattr(host.power, key)), index)
            if other != index:
                yield (index, "power", key), f"is for one machine, and host[{other}] has it, too"


def parse_configuration(text: str, path: Path | str) -> Configuration:
    """The configuration, its paths made absolute; DocumentError with every problem otherwise."""
    found, home = parse(text, Configuration, str(path)), _home(path)
    return found.model_copy(
        update={
            "state_directory": home / found.state_directory,
            "policy": home / found.policy,
        }
    )


def policy_named_in(text: str, path: Path | str) -> Path | None:
    """The policy's file as a configuration names it, whatever else is wrong with that."""
    try:
        named = tomllib.loads(text).get("policy")
    except (ValueError, RecursionError):
        return None
    return _home(path) / named if isinstance(named, str) and named else None


def _home(path: Path | str) -> Path:
    """What paths in the configuration are relative to."""
    return Path(path).absolute().parent


def load_policy(path: Path | str) -> Policy:
    """A policy, named after its file unless it has a name; DocumentError otherwise."""
    return parse_policy(read_text(path), path)


def parse_policy(text: str, path: Path | str) -> Policy:
    """The same of a file that was read already."""
    policy = parse(text, Policy, str(path))
    if policy.engine is not Engine.BUILTIN and find_spec(SOLVER) is None:
        line, key = lines_of(text)["engine",], policy.engine.value
        raise DocumentError([f'{path}:{line}: engine: "{key}" needs balancerd[optimizer]'])
    return policy if policy.name else policy.model_copy(update={"name": Path(path).stem})
