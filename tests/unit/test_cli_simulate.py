"""`simulate` and `plan new`: figures whose names are fixed, the same again each time."""

import json
import shlex
from pathlib import Path

import pytest

from balancerd.adapters.sqlite.samples import SamplesStore
from balancerd.cli.errors import Exit
from balancerd.cli.simulate import next_commands
from balancerd.core.model import Load
from tests.records import POLICY, SCENARIO, Done, balancerctl

FIXED = {
    *("energy_kwh", "slatah", "pdm", "slav", "esv", "migrations", "power_offs", "power_ons"),
    *("mean_active_hosts", "overload_host_seconds", "violations", "plans", "plan_seconds_p50"),
    *("plan_seconds_p99", "plan_seconds_max", "wall_seconds", "peak_rss_bytes"),
}
OF_THE_RUN = (
    *("plan_seconds_p50", "plan_seconds_p99", "plan_seconds_max"),
    *("wall_seconds", "cpu_seconds", "peak_rss_bytes"),
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("files")
    (directory / "small.toml").write_text(SCENARIO)
    (directory / "pack.toml").write_text(POLICY)
    (directory / "quiet.toml").write_text('summary = "x"\nmode = "act"\nobjective = "quiet"\n')
    return directory


@pytest.fixture(scope="module")
def run(files: Path) -> Done:
    """One run whose record is kept."""
    return simulate(files, "--record", files / "record", "-o", "json")


def simulate(files: Path, *arguments: str | Path) -> Done:
    policy = files / "pack.toml"
    done = balancerctl("simulate", files / "small.toml", "--policy", policy, *arguments)
    assert done.returncode == Exit.DONE, done.stderr
    return done


def test_one_object_with_all_the_fixed_figures(run: Done) -> None:
    figures = json.loads(run.stdout)
    assert figures.keys() >= FIXED
    assert all(isinstance(figures[name], int | float) for name in FIXED)
    assert (figures["scenario"], figures["policy"]) == ("small", "pack")
    assert figures["migrations"] > 0
    assert figures["power_offs"] > 0


def test_json_is_what_it_prints_unless_told_otherwise(files: Path, run: Done) -> None:
    """Twice the same but for the figures of the run itself."""
    again, first = json.loads(simulate(files).stdout), json.loads(run.stdout)
    assert {k: v for k, v in again.items() if k not in OF_THE_RUN} == {
        k: v for k, v in first.items() if k not in OF_THE_RUN
    }
    assert "energy" in simulate(files, "-o", "table").stdout


def test_the_events_of_the_record_agree_with_the_figures(files: Path, run: Done) -> None:
    figures = json.loads(run.stdout)
    told = balancerctl("export", record=files / "record").stdout
    events = [json.loads(line) for line in told.splitlines()]
    done = [e for e in events if e["event"] == "move_end" and e["outcome"] == "done"]
    assert len(done) == figures["migrations"]
    assert sum(e["event"] == "plan" for e in events) == figures["plans"]
    offs = [e for e in events if e["event"] == "power" and e["state"] == "off"]
    assert len(offs) == figures["power_offs"]


def test_a_trace_takes_the_place_of_the_scenarios_load(files: Path) -> None:
    trace = files / "trace"
    trace.mkdir()
    for index in range(12):
        (trace / f"vm_{index}").write_text("50\n" * 12)
    figures = json.loads(simulate(files, "--trace", trace).stdout)
    assert figures["vms"] == 12


def test_a_recorded_site_can_be_lived_through_again(files: Path, run: Done) -> None:
    """The path of a record in a scenario is meant from where the scenario is."""
    assert run.returncode == Exit.DONE
    again = files / "again.toml"
    load = '[load]\nkind = "recorded"\nstep = "60s"\npath = "record"\n'
    again.write_text(SCENARIO + load)
    done = balancerctl("simulate", again, "--policy", files / "quiet.toml")
    assert done.returncode == Exit.DONE, done.stderr
    assert json.loads(done.stdout)["vms"] == 12
    again.write_text(SCENARIO + load.replace('"record"', '"nowhere"'))
    missing = balancerctl("simulate", again)
    assert missing.returncode == Exit.INVALID
    assert f"{files / 'nowhere'} does not exist" in missing.stderr


def test_samples_without_vms_are_no_load(tmp_path: Path) -> None:
    with SamplesStore(tmp_path / "samples.db") as samples:
        samples.append(0.0, {"h1": Load(1.0, 1.0, 0)}, {})
    scenario = tmp_path / "s.toml"
    scenario.write_text(SCENARIO + f'[load]\nkind = "recorded"\npath = "{tmp_path}"\n')
    done = balancerctl("simulate", scenario)
    assert done.returncode == Exit.INVALID
    assert "holds no readings of any VM" in done.stderr


def test_a_record_is_never_overwritten(files: Path, run: Done) -> None:
    assert run.returncode == Exit.DONE
    before = (files / "record/ledger.db").read_bytes()
    done = balancerctl("simulate", files / "small.toml", "--record", files / "record")
    assert done.returncode == Exit.INVALID
    assert "holds a record already" in done.stderr
    assert (files / "record/ledger.db").read_bytes() == before


def test_the_commands_that_demo_suggests_work_as_printed(files: Path, run: Done) -> None:
    assert run.returncode == Exit.DONE
    commands = next_commands(files / "record")
    assert len(commands) == 3
    for command in commands:
        name, *arguments = shlex.split(command)
        assert Path(name).name == "balancerctl"
        done = balancerctl(*arguments)
        assert (done.returncode, done.stderr) == (Exit.DONE, "")
        assert done.stdout.count("\n") > 3


@pytest.fixture(scope="module")
def cluster(files: Path, run: Done) -> Path:
    """The cluster file at the end of the run."""
    assert run.returncode == Exit.DONE
    path = files / "cluster.json"
    path.write_text(balancerctl("snapshot", record=files / "record").stdout)
    return path


def plan(cluster: Path, policy: Path) -> Done:
    return balancerctl("plan", "new", "--snapshot", cluster, "--policy", policy, "-o", "json")


def test_a_plan_on_a_cluster_file_has_the_fixed_keys(files: Path, cluster: Path) -> None:
    """The file is edited by hand, as an operator would: one host carries much more."""
    site = json.loads(cluster.read_text())
    for vm in site["vms"]:
        for figures in (vm["load"], vm["forecast"]):
            figures |= {key: 1.6 for key in figures if key.startswith("cpu")}
    for host in site["hosts"]:
        if host.get("load") and host["name"] == site["vms"][0]["host"]:
            host["load"] |= {"cpu_reference_cores": 15.5, "cpu_mean_reference_cores": 15.5}
    busy = files / "busy.json"
    busy.write_text(json.dumps(site))
    done = plan(busy, files / "quiet.toml")
    document = json.loads(done.stdout)
    assert done.returncode == Exit.DONE
    assert document["moves"]
    for move in document["moves"]:
        assert {"vm", "from", "to", "method", "wave", "after"} <= move.keys()
    assert {"score_before", "score_after", "refusals", "plan_seconds"} <= document.keys()
    assert [host["host"] for host in document["hosts_before"]] == ["h0", "h1", "h2", "h3"]
    again = json.loads(plan(busy, files / "quiet.toml").stdout)
    assert again | {"plan_seconds": 0} == document | {"plan_seconds": 0}


def test_an_empty_plan_is_a_plan(files: Path, cluster: Path) -> None:
    done = plan(cluster, files / "quiet.toml")
    assert done.returncode == Exit.DONE
    document = json.loads(done.stdout)
    assert document["moves"] == []
    assert document["reason"]


def test_rules_a_site_cannot_keep_are_found_by_policy_check(files: Path, cluster: Path) -> None:
    pinned = files / "pinned.toml"
    pinned.write_text('summary = "x"\n[[constraint]]\nkind = "pin"\nvms = ["*"]\nhosts = ["h9"]\n')
    assert balancerctl("policy", "check", pinned).returncode == Exit.DONE
    done = balancerctl("policy", "check", pinned, "--snapshot", cluster)
    assert done.returncode == Exit.INVALID
    first, *others = done.stderr.splitlines()
    assert first == f"{pinned}:2: constraint[0]: no host is called h9"
    assert len(set(others)) == len(others)
    asked = files / "asked.toml"
    asked.write_text('summary = "x"\n[power]\nsleep_idle = true\nkeep_on = 99\n')
    done = balancerctl("policy", "check", asked, "--snapshot", cluster)
    assert done.stderr.startswith(f"{asked}:4: power.keep_on: 99 hosts to keep on, of ")
