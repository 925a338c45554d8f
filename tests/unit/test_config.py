"""The configuration file, and what is refused in it."""

from pathlib import Path

import pytest

from balancerd.config import Configuration, load_policy, parse_configuration
from balancerd.documents import DocumentError, parse

FULL = """\
site = "plant-2"
policy = "policies/night.toml"
cycle = "10s"
maintenance = "0 4 * * sun"

[curve]
g5 = [93.7, 110, 135]

[[host]]
name = "h1"
uri = "qemu+ssh://root@h1/system"
migration_uri = "tcp://10.9.0.1"
rack = "r1"
power_curve = "g5"
memory = "240 GiB"
[host.power]
on = ["bmc", "h1", "on"]
off = ["ssh", "h1", "poweroff"]
state = ["bmc", "h1", "state"]

[[host]]
name = "h2"
uri = "qemu+ssh://root@h2/system"
power_curve = [80, 120]
protected = true

[[link]]
a = "r1"
b = "core"
bandwidth = "10 Gbit/s"

[[link]]
a = "core"
b = "h2"
bandwidth = "1 Gbit/s"
"""


def read(text: str) -> Configuration:
    return parse(text, Configuration, "c.toml")


def problems(text: str) -> list[str]:
    with pytest.raises(DocumentError) as caught:
        read(text)
    return list(caught.value.problems)


def test_a_host_that_is_reached_on_the_spot_needs_a_uri_for_the_others_alone() -> None:
    local = FULL.replace('"qemu+ssh://root@h2/system"', '"qemu:///system"\npeer_uri = "{}"')
    assert read(local.format("qemu+tls://h2/system")).host[1].uri == "qemu:///system"
    alone = 'site = "a"\npolicy = "p"\n[[host]]\nname = "h"\nuri = "qemu:///system"\n'
    assert read(alone).host[0].peer_uri is None
    assert read(FULL.replace("tcp://10.9.0.1", "tcp://[fd00::1]:49152")).host[0].migration_uri


def test_a_full_configuration_is_read() -> None:
    site = read(FULL)
    assert site.host[0].memory == 240 * 2**30
    assert site.host[0].power is not None
    assert site.host[0].power.off == ("ssh", "h1", "poweroff")
    assert [site.curve_of(host) for host in site.host] == [(93.7, 110, 135), (80, 120)]
    assert site.link[0].bandwidth == 1_250_000_000
    assert site.tls, "unencrypted only if the file says so"


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    text = 'state_directory = "/srv/state"\n' + FULL
    site = parse_configuration(text, tmp_path / "balancerd.toml")
    assert site.policy == tmp_path / "policies/night.toml"
    assert site.state_directory == Path("/srv/state")


def test_a_policy_is_named_after_its_file_unless_it_has_a_name(tmp_path: Path) -> None:
    unnamed, named = tmp_path / "night.toml", tmp_path / "x.toml"
    unnamed.write_text('summary = "s"')
    named.write_text('summary = "s"\nname = "own"')
    assert [load_policy(path).name for path in (unnamed, named)] == ["night", "own"]


def test_every_problem_is_told_at_its_line() -> None:
    text = """\
site = ""
policy = "p.toml"
log_level = "inf"
maintenance = "30 3 * *"
[[host]]
name = "h1"
uri = "h1"
speed = 0
power_curve = 5
[host.power]
on = "bmc on"
off = []
[[link]]
a = "h1"
b = "h1"
bandwidth = "10 Gbit"
"""
    assert problems(text) == [
        "c.toml:1: site: must not be empty",
        'c.toml:3: log_level: must be one of "debug", "info", "warning", "error", not "inf" '
        '(did you mean "info"?)',
        'c.toml:4: maintenance: "30 3 * *" is not a cron expression '
        '(wrong number of fields; got 4, expected 5); write for example "30 3 * * sun"',
        'c.toml:7: host[0].uri: "h1" is not a URI; write for example "qemu+ssh://root@h1/system"',
        "c.toml:8: host[0].speed: must be greater than 0, not 0",
        "c.toml:9: host[0].power_curve: must be text in quotes or a list, not 5",
        "c.toml:10: host[0].power.state: is missing",
        'c.toml:11: host[0].power.on: must be a list, not "bmc on"',
        "c.toml:12: host[0].power.off: must not be empty",
        'c.toml:16: link[0].bandwidth: "10 Gbit" is not a rate; '
        'write for example "100 MiB/s" or "1 Gbit/s"',
    ]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"h2"\nuri', '"h1"\nuri', 'c.toml:22: host[1].name: host[0] has the name "h1", too'),
        ("root@h2", "root@h1", 'host[1].uri: host[0] has the uri "qemu+ssh://root@h1/system"'),
        ('= "g5"', '= "g4"', 'host[0].power_curve: there is no [curve] "g4" (did you mean "g5"?)'),
        ("[80, 120]", "[80]", "needs the watts at 0 % and at 100 % of CPU at least"),
        ("[80, 120]", "[80, -1]", "host[1].power_curve[1]: must be at least 0, not -1"),
        (
            '"h2"\nbandwidth',
            '"h3"\nbandwidth',
            'c.toml:34: link[1].b: "h3" is neither a host nor a rack, and no other link leads to '
            'it (did you mean "h1"?)',
        ),
        ('b = "core"', 'b = "r1"', 'link[0]: leads from "r1" to itself'),
        ("root@h1", "root:secret@h1", "must not contain a password"),
        ("tcp://10", "tcp//10", 'host[0].migration_uri: "tcp//10.9.0.1" is not a URI'),
        (
            "tcp://10.9.0.1",
            "tcp://fd00::1",
            '"tcp://fd00::1" is not a URI: write an IPv6 address in brackets',
        ),
        (
            "qemu+ssh://root@h2/system",
            "qemu:///system",
            'host[1].uri: to the other hosts, "qemu:///system" means themselves: write a peer_uri',
        ),
        (
            "protected = true",
            '[host.power]\non = ["wake"]\noff = ["shut"]\nstate = ["bmc", "h1", "state"]',
            "c.toml:28: host[1].power.state: is for one machine, and host[0] has it, too",
        ),
        ("tcp://10.9.0.1", "tcp://[10", 'host[0].migration_uri: "tcp://[10" is not a URI'),
        ('"0 4 * * sun"', '"0 4 * * 0"', 'weekdays must be written as names ("sun", "mon-fri")'),
        ('"0 4 * * sun"', '"0 4 * * sat,6"', "weekdays must be written as names"),
        ('"0 4 * * sun"', '"0 4 30 2 *"', 'maintenance: "0 4 30 2 *" never comes'),
        ('"0 4 * * sun"', '"0 25 * * *"', '"0 25 * * *" is not a cron expression (error'),
        ('"10s"', '"0s"', "cycle: must be from 1s to 1h, not 0s"),
        ('"10s"', '"2h"', "cycle: must be from 1s to 1h, not 2h"),
        ('policy = "policies/night.toml"', 'policy = ""', "c.toml:2: policy: must not be empty"),
        ('rack = "r1"', 'rak = "r1"', 'host[0].rak: unknown key (did you mean "rack"?)'),
    ],
)
def test_what_does_not_fit_together_is_refused(old: str, new: str, problem: str) -> None:
    assert FULL.count(old) >= 1
    found = problems(FULL.replace(old, new, 1))
    assert any(problem in line for line in found), found


def test_power_commands_that_name_their_host_may_be_the_same_for_all() -> None:
    """Dies when they are compared before the host's name is put in."""
    commands = '[host.power]\non = ["on", "{host}"]\noff = ["off", "{host}"]\nstate = ["{host}?"]'
    own = FULL[FULL.index("[host.power]") : FULL.index('\n\n[[host]]\nname = "h2"')]
    both = FULL.replace(own, commands).replace("protected = true", commands)
    powers = [host.power for host in read(both).host]
    assert [power and power.off for power in powers] == [("off", "h1"), ("off", "h2")]
    assert [power and power.state for power in powers] == [("h1?",), ("h2?",)]


def test_every_second_weekday_may_be_counted() -> None:
    assert read(FULL.replace("* * sun", "* * */2")).maintenance == "0 4 * * */2"
