"""`why`, `why-not`, `plan graph`, `plan verify`: questions about decisions, on the command line."""

import json
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from balancerd.cli.errors import Exit
from tests.records import POLICY, balancerctl, make_record


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("record")
    make_record(directory)
    (directory / "policy.toml").write_text(POLICY)
    for name, words in (("site", ["snapshot"]), ("plan", ["plan", "show", str(moving(directory))])):
        done = balancerctl(*words, "-o", "json", record=directory)
        (directory / f"{name}.json").write_text(done.stdout)
    return directory


def moving(record: Path) -> int:
    """The number of a plan that moves VMs."""
    plans = json.loads(balancerctl("plan", "list", "-o", "json", record=record).stdout)
    number: int = next(row["id"] for row in plans if row["moves"])
    return number


def answer(record: Path, *arguments: str | Path) -> dict[str, Any]:
    done = balancerctl(*arguments, "-o", "json", record=record)
    assert (done.returncode, done.stderr) == (Exit.DONE, "")
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def test_why_says_what_the_last_cycle_made_of_a_vm(record: Path) -> None:
    found = answer(record, "why", "vm000")
    assert found["sentence"].startswith("vm000 stays")
    assert found["policy"] == "tested"
    facts = {fact["about"]: fact["numbers"] for fact in found["facts"]}
    assert facts["VM"]["memory_bytes"] == 4 * 2**30
    assert 0 < facts["host"]["cpu_utilisation"] < 1
    drawn = balancerctl("why", "vm000", record=record).stdout
    assert drawn.startswith(found["sentence"])
    assert all(fact["text"] in drawn for fact in found["facts"])


def test_why_of_an_old_plan_is_asked_of_what_that_plan_was_made_of(record: Path) -> None:
    """Dies when the newest snapshot is taken, on which the VM is at its target already."""
    number = moving(record)
    vm = answer(record, "plan", "show", str(number))["moves"][0]["vm"]
    found = answer(record, "why", vm, "--plan", str(number))
    assert found["sentence"].startswith(f"{vm} moves ")
    assert found["at"] == answer(record, "plan", "show", str(number))["at"]
    assert answer(record, "why", vm)["moves"] == []


def test_a_move_made_before_the_question_is_remembered(record: Path) -> None:
    vm = answer(record, "plan", "show", str(moving(record)))["moves"][0]["vm"]
    facts = {fact["about"]: fact["text"] for fact in answer(record, "why", vm)["facts"]}
    assert facts["cool-down"].startswith("last moved at 2026-03-02T00:")


def test_files_answer_without_a_record(record: Path, tmp_path: Path) -> None:
    files = ("--snapshot", record / "site.json", "--policy", record / "policy.toml")
    nowhere = tmp_path / "none"
    found = answer(nowhere, "why-not", "vm000", "h3", *files)
    assert found["refusals"][0]["constraint"] == "host closed"
    assert found["change"] == ["wake h3"]
    assert answer(nowhere, "why", "vm000", *files)["sentence"].startswith("vm000 stays")
    done = balancerctl("plan", "graph", *files, record=nowhere)
    assert (done.returncode, done.stdout.splitlines()[0]) == (Exit.DONE, "digraph plan {")


def test_another_policy_can_be_asked_about_the_recorded_site(record: Path) -> None:
    (record / "spread.toml").write_text('summary = "x"\nobjective = "spread"\n')
    found = answer(record, "why", "vm000", "--policy", record / "spread.toml")
    assert found["policy"] == "spread"


def test_why_not_says_what_would_have_to_change(record: Path) -> None:
    done = balancerctl("why-not", "vm000", "h3", record=record)
    assert done.stdout.splitlines()[0] == "vm000 may not go to h3: host closed"
    assert done.stdout.splitlines()[-2:] == [
        "The smallest change that would allow it:",
        "  wake h3",
    ]


@pytest.mark.parametrize("hosts", [(), ("--hosts",)])
def test_a_plan_is_drawn_in_every_form(
    record: Path, hosts: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("plan", "graph", str(moving(record)), *hosts)
    drawn = json.loads(balancerctl(*words, "-o", "json", record=record).stdout)
    assert drawn["nodes"]
    assert balancerctl(*words, record=record).stdout.startswith("digraph plan {")
    monkeypatch.setenv("PATH", "")  # no Graphviz, wherever this runs
    picture = balancerctl(*words, "-o", "svg", record=record).stdout
    assert ElementTree.fromstring(picture).tag == "{http://www.w3.org/2000/svg}svg"


def test_graphviz_is_used_where_it_is_and_missed_where_it_fails(
    record: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "dot"
    program.write_text("#!/bin/sh\necho laid out\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    words = ("plan", "graph", "-o", "svg")
    assert balancerctl(*words, record=record).stdout == "laid out\n"
    program.write_text("#!/bin/sh\nexit 1\n")
    assert balancerctl(*words, record=record).stdout.startswith("<svg")


def test_a_plan_is_verified_on_what_it_was_made_of(record: Path) -> None:
    done = balancerctl("plan", "verify", record / "plan.json", record=record)
    assert done.returncode == Exit.DONE
    assert " is sound on the site of 2026-03-02" in done.stdout


def test_a_plan_that_no_longer_fits_is_not_sound(record: Path) -> None:
    arguments = ("plan", "verify", record / "plan.json", "--snapshot", record / "site.json")
    done = balancerctl(*arguments, "-o", "json", record=record)
    found = json.loads(done.stdout)
    assert done.returncode == Exit.FAILED
    assert not found["sound"]
    assert "is on" in found["violations"][0]


def test_a_plan_of_another_record_is_not_taken_for_one_of_this(
    record: Path, tmp_path: Path
) -> None:
    """Its number may be the same; dies when only the number is compared."""
    spoilt = json.loads((record / "plan.json").read_text()) | {"at": "2026-03-02T00:00:01+00:00"}
    (tmp_path / "plan.json").write_text(json.dumps(spoilt))
    done = balancerctl("plan", "verify", tmp_path / "plan.json", "-o", "json", record=record)
    newest = answer(record, "snapshot")["at"]
    assert json.loads(done.stdout)["snapshot_at"] == newest


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("why vm00", Exit.INVALID, 'there is no VM "vm00" (did you mean "vm0'),
        ("why-not vm000 h9", Exit.INVALID, 'there is no host "h9" (did you mean "h'),
        ("why-not vm000", Exit.INVALID, "Missing argument 'HOST'"),
        ("why vm000 --plan 99", Exit.INVALID, "there is no plan 99"),
        ("why vm000 --plan 1 --policy {d}/policy.toml", Exit.INVALID, "brings its own"),
        ("why vm000 --snapshot {d}/none", Exit.INVALID, "no such file"),
        ("why vm000 --snapshot {d}/plan.json", Exit.INVALID, "not a cluster file"),
        ("why vm000 --policy {d}/site.json", Exit.INVALID, "is not TOML"),
        ("plan graph 99", Exit.INVALID, "there is no plan 99"),
        ("plan graph -o png", Exit.INVALID, "'png' is not one of"),
        ("plan verify {d}/none", Exit.INVALID, "no such file"),
        ("plan verify {d}/site.json", Exit.INVALID, 'not a plan: "moves" is missing'),
        ("plan verify {d}/policy.toml", Exit.INVALID, "not JSON"),
        ("plan verify", Exit.INVALID, "Missing argument 'PLAN'"),
    ],
)
def test_what_cannot_be_answered_is_one_sentence(
    record: Path, line: str, code: Exit, words: str
) -> None:
    done = balancerctl(*line.format(d=record).split(), record=record)
    assert words in done.stderr
    assert (done.returncode, done.stdout) == (code, "")


def test_a_policy_that_this_balancerd_does_not_understand_is_named(
    record: Path, tmp_path: Path
) -> None:
    shutil.copytree(record, tmp_path / "copy")
    from balancerd.adapters.sqlite.database import Access, Database
    from balancerd.adapters.sqlite.schema import LEDGER

    with Database(tmp_path / "copy/ledger.db", LEDGER, Access.WRITE) as ledger:
        ledger.execute("UPDATE policies SET text = 'objektive = 1'", ())
    done = balancerctl("why", "vm000", record=tmp_path / "copy")
    assert done.returncode == Exit.INVALID
    assert "policy tested of the record:1: objektive: unknown key" in done.stderr


JUNK: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers(-3, 99)
    | st.text(max_size=3)
    | st.just([])
    | st.just({})
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_plan_spoilt_at_one_place_is_refused_or_judged_never_a_fault(
    record: Path, tmp_path: Path, data: st.DataObject
) -> None:
    """Any value of the document replaced by any other, or taken out."""
    document = json.loads((record / "plan.json").read_text())
    spoil(document, data)
    path = tmp_path / "spoilt.json"
    path.write_text(json.dumps(document))
    done = balancerctl("plan", "verify", path, record=record)
    assert done.returncode in (Exit.DONE, Exit.FAILED, Exit.INVALID)
    assert "fault" not in done.stderr
    if done.returncode == Exit.INVALID:
        assert len(done.stderr.splitlines()) == 1


def spoil(node: Any, data: st.DataObject) -> None:
    """Replace or remove one value somewhere in the document."""
    keys = list(node) if isinstance(node, dict) else list(range(len(node)))
    key = data.draw(st.sampled_from(keys))
    if isinstance(node[key], dict | list) and node[key] and data.draw(st.booleans()):
        spoil(node[key], data)
    elif data.draw(st.booleans()):
        node[key] = data.draw(JUNK)
    else:
        del node[key]
