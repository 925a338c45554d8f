"""Mutants of the code, each with a test that fails on it: `python -m tests.mutants [WORD]...`.

Every mutant is one text replaced in a copy of the package. With words, only mutants whose file or
effect has one of them. Prints a table; exits 1 if a mutant survives or cannot be made any more.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
CHECK, RULES = "tests/unit/test_check.py", "tests/unit/test_constraints.py"
PLANNED = "tests/property/test_planner_properties.py"


@dataclass(frozen=True, slots=True)
class Mutant:
    """`old` is in the file once; with `new` in its place the test has to fail."""

    effect: str
    file: str
    old: str
    new: str
    test: str


MUTANTS = (
    # --- the checker: a plan as a sequence
    Mutant(
        "an action's number is not looked at",
        "check/sequence.py",
        "if action.number != position:",
        "if False:",
        f"{CHECK}::test_a_mutant_is_found",
    ),
    Mutant(
        "a wait for a later action passes",
        "check/sequence.py",
        "if not 0 < earlier < position:",
        "if not 0 < earlier:",
        f"{CHECK}::test_a_mutant_is_found",
    ),
    Mutant(
        "waits of waits are forgotten",
        "check/sequence.py",
        "waits |= 1 << earlier | replay.before[earlier]",
        "waits |= 1 << earlier",
        f"{CHECK}::test_what_is_waited_for_through_another_has_been_waited_for",
    ),
    Mutant(
        "a VM may leave a host that it is not on",
        "check/sequence.py",
        "if place.get(move.vm) != move.source:",
        "if move.vm not in place:",
        f"{CHECK}::test_a_mutant_is_found",
    ),
    Mutant(
        "a VM that may not be moved is",
        "check/sequence.py",
        "immovable = {exclusion.vm for exclusion in replay.snapshot.exclusions}",
        "immovable = set()",
        f"{CHECK}::test_what_is_excluded_unknown_or_draining_takes_no_part",
    ),
    Mutant(
        "an exclusion counts at the source only",
        "check/sequence.py",
        "ends = (move.source, move.target)",
        "ends = (move.source,)",
        f"{CHECK}::test_a_rule_broken_by_a_plan_is_found",
    ),
    # --- hosts on and off
    Mutant(
        "hosts with a gap take part",
        "check/sequence.py",
        "if host not in hosts or host in unknown:",
        "if host not in hosts:",
        f"{CHECK}::test_what_is_excluded_unknown_or_draining_takes_no_part",
    ),
    Mutant(
        "a draining host takes VMs",
        "check/sequence.py",
        "if move.target in replay.snapshot.draining:",
        "if False:",
        f"{CHECK}::test_what_is_excluded_unknown_or_draining_takes_no_part",
    ),
    Mutant(
        "a woken host takes part before it was woken",
        "check/sequence.py",
        "host in woken and replay.is_before(woken[host], move.number)",
        "host in woken",
        f"{CHECK}::test_a_sleeping_host_takes_part_only_after_its_wake",
    ),
    Mutant(
        "a host that is being filled goes to sleep",
        "check/sequence.py",
        "replay.residents.get(sleep.host) or replay.entering.get(sleep.host)",
        "replay.residents.get(sleep.host)",
        f"{CHECK}::test_only_an_empty_host_sleeps_and_enough_stay_on",
    ),
    Mutant(
        "too many hosts go to sleep",
        "check/sequence.py",
        "on - len(sleeps) < replay.policy.power.keep_on",
        "on < replay.policy.power.keep_on",
        f"{CHECK}::test_only_an_empty_host_sleeps_and_enough_stay_on",
    ),
    Mutant(
        "nobody asks who would need a sleeping host",
        "check/__init__.py",
        "        check_reserve(replay)\n",
        "",
        f"{CHECK}::test_a_host_that_others_would_need_should_they_fail_does_not_sleep",
    ),
    Mutant(
        "a sleeping host is blamed for what no host could take",
        "check/reserve.py",
        "if stranded and not _stranded(replay, vms[name], on - {name}, free):",
        "if stranded:",
        f"{CHECK}::test_a_host_that_others_would_need_should_they_fail_does_not_sleep",
    ),
    # --- capacity, with all that can be there at the same time
    Mutant(
        "VMs under way are not charged to their targets",
        "check/replay.py",
        '{cluster.placement[vm], cluster.flights.get(vm, "")} - {""}',
        "{cluster.placement[vm]}",
        f"{CHECK}::test_what_is_under_way_is_charged_on_both_ends",
    ),
    Mutant(
        "who leaves later is gone already",
        "check/replay.py",
        "            and self.is_before(leave.number, move.number)\n",
        "",
        f"{CHECK}::test_a_swap_is_sound_only_with_its_waits",
    ),
    Mutant(
        "only residents count, not who enters",
        "check/replay.py",
        "for entry in self.entering.get(host, ()):",
        "for entry in ():",
        f"{CHECK}::test_a_mutant_is_found",
    ),
    Mutant(
        "memory is not looked at",
        "check/capacity.py",
        "    if capacity.enforce_memory:",
        "    if False:",
        f"{CHECK}::test_a_mutant_is_found",
    ),
    Mutant(
        "CPU is not looked at",
        "check/capacity.py",
        '    _limit(replay, move, "CPU", cpu, bands.cpu.landing * left * target.cpu)\n',
        "",
        f"{CHECK}::test_rules_that_count_are_found_broken",
    ),
    Mutant(
        "vCPUs are not looked at",
        "check/capacity.py",
        '_limit(replay, move, "vCPUs", vcpus,',
        '_limit(replay, move, "vCPUs", 0,',
        f"{CHECK}::test_rules_that_count_are_found_broken",
    ),
    Mutant(
        "headroom is used up",
        "check/capacity.py",
        "left = 1.0 - _kept_free(replay, move.target)",
        "left = 1.0",
        f"{CHECK}::test_rules_that_count_are_found_broken",
    ),
    Mutant(
        "VMs are not counted",
        "check/capacity.py",
        '_limit(replay, move, "VMs", len(vms),',
        '_limit(replay, move, "VMs", 1,',
        f"{CHECK}::test_rules_that_count_are_found_broken",
    ),
    # --- rules
    Mutant(
        "soft rules forbid",
        "check/rules.py",
        "        if rule.weight is not None:\n            continue\n",
        "",
        f"{CHECK}::test_soft_rules_forbid_nothing_and_are_listed_with_what_they_cost_at_the_end",
    ),
    Mutant(
        "pins and avoidances are not looked at",
        "check/rules.py",
        'if rule.kind in ("pin", "avoid", "one-of"):\n            if matches',
        "if False:\n            if matches",
        f"{CHECK}::test_a_rule_broken_by_a_plan_is_found",
    ),
    Mutant(
        "an apart group may meet in a rack",
        "check/replay.py",
        'if rule.scope == "host" and rule.kind != "one-of":',
        "if True:",
        f"{CHECK}::test_members_of_a_group_do_not_meet_in_a_rack",
    ),
    Mutant(
        "an apart group may always have one more",
        "check/rules.py",
        "slack = rule.at_most - 1 - len(others)",
        "slack = rule.at_most - len(others)",
        f"{CHECK}::test_rules_that_count_are_found_broken",
    ),
    Mutant(
        "a passed-through CPU goes anywhere",
        "check/rules.py",
        'same_cpu = home.cpu_model != "" and home.cpu_model == target.cpu_model',
        "same_cpu = True",
        f"{CHECK}::test_a_target_that_lacks_what_the_vm_needs_is_found",
    ),
    Mutant(
        "a path begins like a shared one",
        "check/rules.py",
        'path.rstrip("/") + "/" for path in storage',
        'path.rstrip("/") for path in storage',
        f"{CHECK}::test_a_target_that_lacks_what_the_vm_needs_is_found",
    ),
    Mutant(
        "a together group may be torn apart",
        "check/rules.py",
        "if len(ended) > max(1, len(began)):",
        "if False:",
        f"{CHECK}::test_a_rule_broken_by_a_plan_is_found",
    ),
    Mutant(
        "tags are no rules",
        "tags.py",
        "return policy.constraint + tuple(",
        "return policy.constraint or tuple(",
        f"{RULES}::test_tags_and_the_policys_rules_hold_together",
    ),
    # --- rules as planning uses them
    Mutant(
        "the planner overlooks apart groups",
        "constraints/fast.py",
        '        if group.kind == "apart":\n            refused |=',
        "        if False:\n            refused |=",
        f"{PLANNED}::test_every_plan_is_sound_in_the_eyes_of_the_checker",
    ),
    Mutant(
        "the block's own VMs count as others",
        "constraints/fast.py",
        "    counts[domains[layout.place[block]]] -= own\n",
        "",
        f"{RULES}::test_a_rule_says_where_a_vm_may_go",
    ),
    Mutant(
        "too many of a group in a domain is one fewer",
        "constraints/fast.py",
        "counts + coming > group.at_most",
        "counts + coming > group.at_most + 1",
        f"{RULES}::test_rules_for_groups_of_hosts_numbers_and_headroom",
    ),
    Mutant(
        "VMs under way are charged at their source alone",
        "survey.py",
        "            _charge_flight(layout, layout.block_of[vm], layout.host_row[target])\n",
        "            pass\n",
        f"{RULES}::test_a_vm_under_way_to_the_target_is_charged_there",
    ),
    Mutant(
        "what is kept free is not",
        "survey.py",
        "spare = 1.0 - _kept_free(row, rules)",
        "spare = 1.0 - 0.0 * _kept_free(row, rules)",
        f"{RULES}::test_rules_for_groups_of_hosts_numbers_and_headroom",
    ),
    Mutant(
        "a soft rule binds",
        "reach.py",
        "elif rule.weight is None:",
        "elif True:",
        f"{RULES}::test_a_soft_rule_refuses_nothing_and_breaks_nothing",
    ),
    Mutant(
        "a pair that is apart costs for each of its VMs",
        "constraints/soft.py",
        "sum(count**2 for count in counts)) / 2",
        "sum(count**2 for count in counts))",
        f"{PLANNED}::test_what_soft_rules_cost_is_what_their_definition_says",
    ),
    Mutant(
        "storage is reached by the beginning of its name",
        "needs.py",
        'place.startswith(shared.rstrip("/") + "/")',
        "place.startswith(shared)",
        f"{RULES}::test_a_vm_goes_only_where_its_machine_type_and_its_storage_are",
    ),
    Mutant(
        "a tag with a typing error is passed over",
        "tie.py",
        "    if complaint:",
        "    if False:",
        f"{RULES}::test_a_vm_with_an_unreadable_tag_stays_but_what_can_be_read_holds",
    ),
    # --- contradictions, order, reserve
    Mutant(
        "only the number of hosts is counted",
        "constraints/contradictions.py",
        "        if all(len(open_) * rule.at_most >=",
        "        if True or all(len(open_) * rule.at_most >=",
        f"{RULES}::test_a_group_kept_apart_in_too_few_hosts_by_pins_is_named",
    ),
    Mutant(
        "a place takes one name, whatever it may",
        "graphs.py",
        'graph.add_edge(("place", place), sink, capacity=at_most)',
        'graph.add_edge(("place", place), sink, capacity=1)',
        "tests/property/test_contradictions.py",
    ),
    Mutant(
        "what belongs together moves in any order",
        "order.py",
        'if group.kind == "together" or (',
        "if (",
        "tests/unit/test_order.py::test_what_is_to_be_together_arrives_before_the_others_leave",
    ),
    Mutant(
        "nothing waits for who visited the target before",
        "order.py",
        "            waits.update(touching.get(step.target, ()))\n",
        "            pass\n",
        "tests/unit/test_order.py",
    ),
    Mutant(
        "many small rooms are as good as a large one",
        "constraints/reserve.py",
        "(rooms.memory - memory.max()) /",
        "rooms.memory /",
        f"{RULES}::test_many_small_rooms_are_no_room_for_a_large_vm_of_a_failed_host",
    ),
    Mutant(
        "any free host takes the VMs of a failed one, wherever they may be",
        "constraints/reserve.py",
        "open_ = layout.reachable[layout.signature[block]] & (",
        "open_ = np.True_ & (",
        "tests/property/test_reserve.py",
    ),
    Mutant(
        "a host sleeps though another one's VMs would need it",
        "planner/power.py",
        "        if draft.policy.power.reserve:",
        "        if False:",
        "tests/unit/test_planner.py",
    ),
)


def main(words: list[str]) -> int:
    chosen = [m for m in MUTANTS if not words or any(w in f"{m.file} {m.effect}" for w in words)]
    survivors = 0
    print("| mutant | in | dies in |\n|---|---|---|")
    for mutant in chosen:
        fault = judge(mutant)
        survivors += bool(fault)
        test = mutant.test.removeprefix("tests/").replace(".py::", ": ")
        print(f"| {mutant.effect} | `{mutant.file}` | {fault or f'`{test}`'} |", flush=True)
    return 1 if survivors else 0


def judge(mutant: Mutant) -> str:
    """What is wrong with a mutant: it survives, or cannot be made; "" if its test kills it."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in ("balancerd", "tests"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        file = copy / "balancerd" / "core" / mutant.file
        text = file.read_text()
        if text.count(mutant.old) != 1:
            return f"CANNOT BE MADE: its text is there {text.count(mutant.old)} times"
        file.write_text(text.replace(mutant.old, mutant.new))
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", mutant.test],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": folder, "CI": "1"},
            capture_output=True,
            check=False,
        )
    return {0: "SURVIVES", 1: ""}.get(done.returncode, f"ERROR: {done.stdout[-300:]!r}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
