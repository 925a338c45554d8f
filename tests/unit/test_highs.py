"""The solver's process: what it finds, and what is told where it fails."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from balancerd import config
from balancerd.adapters.highs import solve, solver
from balancerd.config import load_policy
from balancerd.core.exact.program import Program, Rows
from balancerd.core.files.cluster_file import cluster_file
from balancerd.core.policies.choices import Engine
from balancerd.documents import DocumentError
from tests.records import balancerctl
from tests.sites import site

GIB = 2**30


def knapsack() -> Program:
    """Four things of which no more than 10 may be taken, each worth taking: 3 + 4 are best."""
    rows = Rows()
    rows.add(np.arange(4), np.array([5.0, 4.0, 6.0, 3.0]), -np.inf, 10.0)
    cost = np.array([-10.0, -40.0, -30.0, -50.0])
    return rows.program(cost, np.ones(4), np.ones(4, np.bool_), np.zeros(4))


def test_a_program_is_solved_in_a_process_of_its_own() -> None:
    found = solve(knapsack(), 30.0, 2 * GIB)
    assert found.x is not None
    assert np.round(found.x).tolist() == [0, 1, 0, 1]
    assert (found.told, found.bound) == ("optimal", -90.0)


def test_what_is_not_whole_may_be_anything_between() -> None:
    found = solve(replace(knapsack(), whole=np.zeros(4, np.bool_)), 30.0, 2 * GIB)
    assert found.x is not None
    assert float(knapsack().cost @ found.x) == pytest.approx(-90.0 - 30.0 * 3 / 6)


def test_a_program_that_nothing_keeps_has_no_solution_and_says_so() -> None:
    found = solve(replace(knapsack(), low=np.array([99.0]), high=np.array([99.0])), 30.0, 2 * GIB)
    assert (found.x, found.told) == (None, "infeasible")


def hard(count: int = 200, rows: int = 30) -> Program:
    """More than can be proven in a minute: many things of nearly the same size and worth."""
    random, drawn = np.random.default_rng(1), Rows()
    for _ in range(rows):
        drawn.add(np.arange(count), random.uniform(90, 110, count), -np.inf, 100.5 * count / 3)
    cost = -random.uniform(90, 110, count)
    return drawn.program(cost, np.ones(count), np.ones(count, np.bool_), np.zeros(count))


def test_a_solver_stops_at_its_deadline_with_the_best_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Dies when HiGHS is not told how long it may take: then it is killed, and has nothing."""
    monkeypatch.setattr(solver, "GRACE", 60.0)  # to be started may take long on a busy machine
    found = solve(hard(), 2.0, 2 * GIB)
    assert found.told == "time limit reached"
    assert found.x is not None
    assert found.bound <= float(hard().cost @ found.x)


def test_a_solver_without_memory_ends_and_nothing_else_does() -> None:
    """Dies when the cap is not set: 64 MiB are enough for nothing here."""
    found = solve(knapsack(), 30.0, 64 * 2**20)
    assert found.x is None
    assert found.told.startswith(("ended with code", "was ended by SIG"))


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("import time; time.sleep(60)", "was killed after 0.5 s"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "was ended by SIGKILL"),
        ("raise SystemExit('no such luck')", "ended with code 1 (no such luck)"),
        ("print('hello')", "gave no answer that can be read"),
        ("pass", "gave no answer that can be read"),
    ],
)
def test_whatever_becomes_of_the_process_is_told_in_words(
    script: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(solver, "GRACE", 0.25)
    found = solve(knapsack(), 0.25, GIB, (sys.executable, "-c", script))
    assert (found.x, found.told) == (None, words)


def test_a_program_that_cannot_be_started_is_told_too() -> None:
    found = solve(knapsack(), 1.0, GIB, ("/nowhere/python",))
    assert found.told == "could not be started (No such file or directory)"


def test_an_answer_of_another_size_is_none() -> None:
    script = (
        "import numpy, sys; numpy.savez(sys.stdout.buffer, x=numpy.zeros(3), bound=0.0, told='ok')"
    )
    assert solve(knapsack(), 10.0, GIB, (sys.executable, "-c", script)).x is None


def test_a_policy_that_needs_what_is_not_installed_is_refused_at_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at three in the morning, when it first comes to it."""
    path = tmp_path / "p.toml"
    path.write_text('summary = "x"\n\nengine = "exact"\n')
    assert load_policy(path).engine is Engine.EXACT
    monkeypatch.setattr(config, "SOLVER", "highspy_that_nobody_has")
    with pytest.raises(DocumentError) as caught:
        load_policy(path)
    assert str(caught.value) == f'{path}:3: engine: "exact" needs balancerd[optimizer]'
    path.write_text('summary = "x"\n')
    assert load_policy(path).engine is Engine.BUILTIN


def test_a_plan_made_offline_is_made_by_the_engine_of_its_policy(tmp_path: Path) -> None:
    cluster = site("h1 10c 64G: a 3c 8G, b 2c 8G | h2 10c 64G: c 1c 4G")
    (tmp_path / "c.json").write_text(json.dumps(cluster_file(cluster)))
    (tmp_path / "p.toml").write_text('summary = "x"\nobjective = "pack"\nengine = "shadow"\n')
    words = ("plan", "new", "--snapshot", tmp_path / "c.json", "--policy", tmp_path / "p.toml")
    done = balancerctl(*words, "-o", "json")
    assert done.returncode == 0, done.stderr
    assert "; exact: optimal, costs " in json.loads(done.stdout)["reason"]
