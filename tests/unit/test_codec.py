"""The codec, the cluster file and the plan document: their shapes, and what they refuse."""

import json
from typing import Any

import pytest

from balancerd.core.files.cluster_file import VERSION, cluster_file, parse_cluster_file, snapshot_of
from balancerd.core.files.codec import CodecError, decode, encode
from balancerd.core.files.plan_document import plan_document, plan_of
from balancerd.core.model import VM, Disk, Host, Link, Load, Method, PowerState
from balancerd.core.plan import Action, Move, Sleep
from balancerd.core.units import GIB
from tests.sites import planned, policy, site, under_way


def file_of(**changes: Any) -> dict[str, Any]:
    """A cluster file of two hosts and a VM, as read from JSON, with some keys changed."""
    snapshot = site("h1 16c 64G: a 8c 16G | h2 16c 64G:")
    data: dict[str, Any] = json.loads(json.dumps(cluster_file(snapshot)))
    return {**data, **changes}


def test_keys_carry_their_units_and_defaults_of_a_host_are_left_out() -> None:
    host = Host("h1", 16.0, 64 * GIB, power=PowerState.OFF)
    assert encode(host) == {
        "name": "h1",
        "cpu_reference_cores": 16.0,
        "memory_bytes": 64 * GIB,
        "power": "off",
    }


def test_a_move_uses_the_words_that_are_fixed_for_plans() -> None:
    move = Move(1, "a", "h1", "h2", Method.PRE_COPY, "room", downtime=0.07)
    data = encode(move)
    assert {key: data[key] for key in ("vm", "from", "to", "method", "wave", "after")} == {
        "vm": "a",
        "from": "h1",
        "to": "h2",
        "method": "pre-copy",
        "wave": 1,
        "after": [],
    }
    assert data["predicted_downtime_ms"] == 70.0
    assert decode(Move, data) == move


def test_a_union_is_told_apart_by_its_kind() -> None:
    sleep = Sleep(3, "h1", "empty", after=(1, 2))
    data = encode(sleep, Action)
    assert data["kind"] == "sleep"
    assert decode(Action, data) == sleep  # type: ignore[arg-type]  # no type[T] is a union


def test_numbers_that_json_lacks_are_text() -> None:
    assert encode(Load(float("inf"), 0.0, 0))["cpu_reference_cores"] == "inf"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"name": "a"}, '"memory_bytes" is missing'),
        ({"name": "a", "memory": 1}, 'unknown key "memory"; did you mean "memory_bytes"?'),
        ({"name": "a", "memory_bytes": "1 GiB"}, "memory_bytes: must be a whole number"),
        ({"name": "a", "memory_bytes": 1.5}, "memory_bytes: must be a whole number, not 1.5"),
        ({"name": "a", "memory_bytes": True}, "memory_bytes: must be a whole number, not True"),
        ({"name": "a", "memory_bytes": 1, "state": "up"}, "state: must be one of running, paused"),
        (
            {"name": "a", "memory_bytes": 1, "disks": [{"source": "x", "shared": "no"}]},
            "disks[0].shared: must be true or false, not 'no'",
        ),
        ([], "must be a table of keys and values, not []"),
    ],
)
def test_data_that_is_no_vm_is_refused_with_the_place(data: Any, message: str) -> None:
    with pytest.raises(CodecError) as caught:
        decode(VM, data)
    assert str(caught.value).startswith(message)


def test_whole_numbers_may_be_written_as_other_programs_write_them() -> None:
    assert decode(VM, {"name": "a", "memory_bytes": 1e9}).memory == 10**9


def test_a_cluster_file_has_each_vm_with_its_place_and_load() -> None:
    snapshot = under_way(site("h1 16c 64G: a 8c 16G | h2 16c 64G:"), a="h2")
    data = cluster_file(snapshot)
    assert data["version"] == VERSION
    (vm,) = data["vms"]
    assert (vm["name"], vm["host"], vm["moving_to"]) == ("a", "h1", "h2")
    assert vm["load"]["cpu_reference_cores"] == 8.0
    assert [host["name"] for host in data["hosts"]] == ["h1", "h2"]
    assert snapshot_of(data) == snapshot


def test_a_cluster_file_can_be_short() -> None:
    text = """{"version": 1, "at": "2026-03-01T08:00:00+01:00",
               "hosts": [{"name": "h1", "cpu_reference_cores": 16, "memory_bytes": 68719476736}],
               "vms": [{"name": "a", "memory_bytes": 1073741824, "host": "h1"}]}"""
    snapshot = parse_cluster_file(text, "site.json")
    assert snapshot.cluster.placement == {"a": "h1"}
    assert snapshot.at == 1772348400.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "site.json:1: not JSON: expecting value (column 1)"),
        ('{"version": 1,\n "at": }', "site.json:2: not JSON: expecting value (column 8)"),
        ('{"version": NaN}', "site.json: not JSON: NaN is not a number"),
        ("[" * 100_000, "site.json: not JSON: nested too deeply"),
        ('{"version": ' + "1" * 5000 + "}", "site.json: not JSON: a number has too many digits"),
        (b"\xff\xff", "site.json: not JSON: not UTF-8 text"),
        ("[]", 'site.json:1: not a cluster file: "version" is missing'),
        (
            '{"version": 2}',
            "site.json:1: version 2 of the cluster file is not known; "
            "this balancerd reads version 1",
        ),
        ('{"version": 1}', 'site.json:1: "at" is missing'),
    ],
)
def test_a_file_that_is_no_cluster_file_is_refused_in_one_line(
    text: str | bytes, message: str
) -> None:
    with pytest.raises(CodecError) as caught:
        parse_cluster_file(text, "site.json")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_the_line_of_a_wrong_entry_is_told() -> None:
    """Kills: a line counted from the entry before, keys that hold brackets or quotes."""
    text = """{
      "version": 1, "at": "2026-03-01T08:00:00+01:00",
      "hosts": [
        {"name": "]}\\"", "cpu_reference_cores": 1, "memory_bytes": 1},
        {
          "name": "h2",
          "memory_bytes": [1],
          "cpu_reference_cores": 1
        }
      ]
    }"""
    with pytest.raises(CodecError) as caught:
        parse_cluster_file(text, "site.json")
    assert str(caught.value) == (
        "site.json:7: hosts[1].memory_bytes: must be a whole number, not [1]"
    )
    missing = text.replace('"memory_bytes": [1],', "")
    with pytest.raises(CodecError, match=r':5: hosts\[1\]: "memory_bytes" is missing'):
        parse_cluster_file(missing, "site.json")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"at": "yesterday"}, "at: must be an ISO 8601 time with an offset"),
        ({"at": "2026-03-01T08:00:00"}, "at: must be an ISO 8601 time with an offset"),
        ({"hosts": {}}, "hosts: must be a list"),
        ({"host": []}, 'unknown key "host"; did you mean "hosts"?'),
        ({"links": [{"a": "h1", "b": "h2"}]}, 'links[0]: "bandwidth_bytes_per_s" is missing'),
        (
            {"vms": [{"name": "a", "memory_bytes": 1, "host": "h9"}]},
            'vms[0].host: there is no host "h9" in the file',
        ),
        (
            {"vms": [{"name": "a", "memory_bytes": 1, "load": {"cpu_reference_cores": 1}}]},
            'vms[0].load: "cpu_mean_reference_cores" is missing',
        ),
        (
            {"vms": [{"name": "a", "memory_bytes": 1}, {"name": "a", "memory_bytes": 1}]},
            'vms[1]: there is another VM of the name "a"',
        ),
        ({"vms": ["a"]}, "vms[0]: must be a table of keys and values"),
    ],
)
def test_a_wrong_entry_is_named_by_its_place(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CodecError) as caught:
        snapshot_of(file_of(**changes))
    assert str(caught.value).startswith(message)


def test_links_disks_and_drains_survive_the_file() -> None:
    snapshot = site("h1 16c 64G: a 8c 16G | h2 16c 64G:", draining=frozenset({"h2"}))
    data = file_of(links=[{"a": "h1", "b": "h2", "bandwidth_bytes_per_s": 1.25e9}], draining=["h2"])
    data["vms"][0]["disks"] = [{"source": "/a", "shared": False, "size_bytes": 5}]
    read = snapshot_of(data)
    assert read.cluster.links == (Link("h1", "h2", 1.25e9),)
    assert read.cluster.vms["a"].disks == (Disk("/a", shared=False, size=5),)
    assert read.draining == snapshot.draining


def test_a_plan_that_the_planner_made_survives_its_document() -> None:
    snapshot = site("h1 16c 64G: a 8c 16G, b 6c 8G | h2 16c 64G: c 1c 8G | h3 16c 64G:")
    plan = planned(snapshot, policy("spread"))
    assert plan.moves and plan.assessments and plan.before
    data = json.loads(json.dumps(plan_document(plan), allow_nan=False))
    assert plan_of(data) == plan
