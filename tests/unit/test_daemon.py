"""The process: what it says to systemd, its signals, its exit codes.

Hosts are libvirt's own test driver, in which one VM seems to run twice: nothing may ever move."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest
from apscheduler.triggers.cron import CronTrigger

from balancerd.daemon import Alarm, Alarms, was_missed
from tests.records import balancerctl

BALANCERD = Path(sys.executable).parent / "balancerd"
POLICY = 'summary = "test"\nmode = "act"\n'
CONFIGURATION = """
site = "test"
state_directory = "state"
policy = "policy.toml"
cycle = "1s"

[[host]]
name = "h1"
uri = "test:///default"

[[host]]
name = "h2"
uri = "test:///default?second"
"""


class Process:
    """balancerd in a directory, with an ear on what it tells systemd."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.write("balancerd.toml", CONFIGURATION)
        self.write("policy.toml", POLICY)
        self.channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.channel.bind(str(directory / "notify"))
        self.running: subprocess.Popen[str] | None = None
        self.told: list[str] = []

    def write(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text)

    def start(self) -> None:
        """Start it; its log goes to a file."""
        environment = {**os.environ, "NOTIFY_SOCKET": str(self.directory / "notify")}
        with (self.directory / "log").open("a") as log:
            self.running = subprocess.Popen(
                [BALANCERD, "--config", self.directory / "balancerd.toml"],
                env=environment,
                stdout=log,
                stderr=log,
                text=True,
            )

    def hears(self, *words: str) -> str:
        """Wait until balancerd has told systemd something with all these words."""
        end = time.monotonic() + 30
        while True:
            self.channel.settimeout(max(end - time.monotonic(), 0.001))
            try:
                told = self.channel.recv(4096).decode()
            except TimeoutError:
                raise AssertionError(f"never told {words}, but {self.told[-5:]}") from None
            self.told.append(told)
            if all(word in told for word in words):
                return told

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the exit code."""
        assert self.running is not None
        self.running.send_signal(number)
        return self.running.wait(10)

    def log(self) -> str:
        """All it has said so far."""
        return (self.directory / "log").read_text()

    def close(self) -> None:
        if self.running is not None and self.running.poll() is None:
            self.running.kill()
            self.running.wait()
        self.channel.close()


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    made = Process(tmp_path)
    yield made
    made.close()


def until(happened: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.05)


def once(*arguments: object) -> subprocess.CompletedProcess[str]:
    """balancerd run to its end."""
    return subprocess.run(
        [BALANCERD, *map(str, arguments)], capture_output=True, text=True, timeout=30
    )


def test_an_end_waits_for_nothing_that_rang_before_and_what_rang_twice_is_served_once() -> None:
    """Dies if alarms are served in the order they came: cycles that take longer than the time
    between them would have SIGTERM wait behind all of a night's."""
    alarms = Alarms()
    for alarm in (*[Alarm.CYCLE] * 1000, Alarm.MAINTENANCE, Alarm.NEWS, Alarm.STOP, Alarm.CYCLE):
        alarms.ring(alarm)
    served = [alarms.next(0.0) for _ in range(5)]
    assert served == [Alarm.STOP, Alarm.NEWS, Alarm.MAINTENANCE, Alarm.CYCLE, None]


def test_it_is_ready_then_feeds_the_watchdog_with_cycles_and_ends_on_sigterm(
    process: Process,
) -> None:
    process.start()
    process.hears("READY=1", "WATCHDOG_USEC=120000000")
    for _ in range(3):
        process.hears("WATCHDOG=1", "STATUS=")
    assert process.stop() == 0
    assert "Traceback" not in process.log()


def test_a_cycle_that_says_nothing_new_has_no_line_in_the_log(process: Process) -> None:
    """Dies when each cycle is told: 2,880 lines a day that say nothing."""
    process.start()
    for _ in range(4):
        process.hears("WATCHDOG=1", "frozen: test (")
    process.stop()
    assert process.log().count("frozen: test (") == 1


def test_the_audit_tells_when_balancerd_was_there_and_under_which_policy(
    process: Process,
) -> None:
    """Dies when nobody can say afterwards since when a policy has been in force."""
    for text in (POLICY, POLICY, 'summary = "other"\nmode = "observe"\n'):
        process.write("policy.toml", text)
        process.start()
        process.hears("WATCHDOG=1")
        process.stop()
    with closing(sqlite3.connect(process.directory / "state" / "ledger.db")) as ledger:
        told = list(ledger.execute("SELECT kind, detail FROM events WHERE kind <> 'trouble'"))
    assert [kind for kind, _ in told] == ["policy", *["begin", "end"] * 2, "policy", "begin", "end"]
    assert told[0][1] == "in force: act, spread: test"
    assert told[5][1] == "in force: observe, spread: other"


def test_a_vm_that_runs_on_two_hosts_freezes_the_site_and_is_told_as_it_was_seen(
    process: Process,
) -> None:
    """libvirt's test driver shows the same VM, of one UUID, running behind every URI."""
    process.start()
    process.hears("WATCHDOG=1", "frozen: test (", "runs on h1 and h2 at once")
    process.stop()
    with closing(sqlite3.connect(process.directory / "state" / "ledger.db")) as ledger:
        subjects = [row[0] for row in ledger.execute("SELECT subject FROM events")]
        assert not list(ledger.execute("SELECT * FROM intents"))
    assert "test runs on h1 and h2" in subjects


def test_a_second_balancerd_on_the_same_record_is_refused(process: Process) -> None:
    process.start()
    process.hears("WATCHDOG=1")
    second = once("--config", process.directory / "balancerd.toml")
    assert second.returncode == 4
    assert "another balancerd" in second.stderr
    assert len(second.stderr.splitlines()) == 1


def test_a_record_can_be_taken_over_from_one_that_was_killed(process: Process) -> None:
    process.start()
    process.hears("WATCHDOG=1")
    process.stop(signal.SIGKILL)
    process.start()
    process.hears("READY=1")


def test_status_says_since_when_balancerd_is_not_there_and_whether_it_was_stopped(
    process: Process,
) -> None:
    state = process.directory / "state"
    for number, word, stopped in (
        (signal.SIGTERM, "stopped", True),
        (signal.SIGKILL, "SILENT", False),
    ):
        process.start()
        process.hears("WATCHDOG=1")
        assert json.loads(balancerctl("status", "-o", "json", record=state).stdout)["running"]
        process.stop(number)
        done = balancerctl("status", record=state)
        assert done.returncode == 3
        assert done.stdout.splitlines()[1].startswith(word)
        told = json.loads(balancerctl("status", "-o", "json", record=state).stdout)
        assert told["stopped"] is stopped
        assert time.time() - datetime.fromisoformat(told["absent_since"]).timestamp() < 20


def test_every_problem_of_the_files_is_told_with_its_line_and_exit_code_2(
    process: Process,
) -> None:
    process.write("balancerd.toml", CONFIGURATION.replace('cycle = "1s"', "cycel = 1\ntls = 3"))
    found = once("--config", process.directory / "balancerd.toml")
    assert found.returncode == 2
    assert 'balancerd.toml:5: cycel: unknown key (did you mean "cycle"?)' in found.stderr
    assert "balancerd.toml:6: tls:" in found.stderr
    assert not (process.directory / "state").exists()


def test_check_only_reads(process: Process) -> None:
    right = once("--config", process.directory / "balancerd.toml", "--check")
    assert (right.returncode, "2 hosts, policy policy: test" in right.stderr) == (0, True)
    process.write("policy.toml", POLICY + 'objektive = "pack"\n')
    found = once("--config", process.directory / "balancerd.toml", "--check")
    assert found.returncode == 2
    assert found.stderr.startswith(f"{process.directory}/policy.toml:3: objektive"), "no time"
    assert not (process.directory / "state").exists()


def test_check_tells_the_problems_of_both_files_at_once(process: Process) -> None:
    """Dies when the policy is only looked at once the configuration is right."""
    process.write("balancerd.toml", CONFIGURATION.replace('cycle = "1s"', "cycel = 1"))
    process.write("policy.toml", POLICY + 'objektive = "pack"\n')
    found = once("--config", process.directory / "balancerd.toml", "--check")
    assert found.returncode == 2
    assert [line.split(": ")[1] for line in found.stderr.splitlines()] == ["cycel", "objektive"]


def test_a_file_that_is_no_ledger_is_left_as_it_is(process: Process) -> None:
    (process.directory / "state").mkdir()
    process.write("state/ledger.db", "my diary\n" * 500)
    found = once("--config", process.directory / "balancerd.toml")
    assert found.returncode != 0
    assert "Traceback" not in found.stderr
    assert (process.directory / "state" / "ledger.db").read_text() == "my diary\n" * 500


def test_sighup_puts_a_changed_policy_in_force(process: Process) -> None:
    process.start()
    process.hears("WATCHDOG=1")
    process.write("policy.toml", 'summary = "test"\nname = "other"\n')
    assert process.running is not None
    process.running.send_signal(signal.SIGHUP)
    process.hears("RELOADING=1", "MONOTONIC_USEC=")
    process.hears("READY=1", "policy other is in force")


def test_sighup_with_a_broken_file_keeps_the_old_one_and_says_so(process: Process) -> None:
    process.start()
    process.hears("WATCHDOG=1")
    process.write("policy.toml", "mode = 7\n")
    assert process.running is not None
    process.running.send_signal(signal.SIGHUP)
    process.hears("READY=1", "the old configuration stays in force")
    process.hears("WATCHDOG=1")
    assert "policy.toml:1: mode" in process.log()
    history = balancerctl("history", "-o", "json", record=process.directory / "state").stdout
    told = [line["detail"] for line in json.loads(history) if line["kind"] == "reload"]
    assert len(told) == 1 and told[0].startswith("refused: ") and "policy.toml:1: mode" in told[0]


def test_sighup_with_other_hosts_begins_anew_with_them(process: Process) -> None:
    process.start()
    process.hears("WATCHDOG=1")
    process.write("balancerd.toml", CONFIGURATION.replace('"h2"', '"h9"'))
    assert process.running is not None
    process.running.send_signal(signal.SIGHUP)
    process.hears("READY=1", "first cycle")
    process.hears("WATCHDOG=1")
    until(lambda: "watching h1, h9" in process.log())


@pytest.mark.parametrize(("last", "missed"), [(0.0, True), (3.4, True), (3.6, False)], ids=str)
def test_maintenance_that_was_due_is_known_by_the_last_one(last: float, missed: bool) -> None:
    """It is due at half past three, and now it is six."""
    cron = CronTrigger.from_crontab("30 3 * * *", timezone="UTC")
    assert was_missed(cron, last * 3600, 6 * 3600) is missed


def test_maintenance_that_was_missed_is_made_up_for(process: Process) -> None:
    """Dies when the alarm alone tells that it is due: what waited for migrations as the files were
    read again, or was due while balancerd was down, waited until the next day."""
    backups = process.directory / "state" / "backups"
    backups.mkdir(parents=True)
    old = backups / "ledger-2024-01-01.db"
    old.touch()
    os.utime(old, (0, 0))
    process.start()
    process.hears("WATCHDOG=1")
    until(lambda: len(list(backups.iterdir())) == 2)


def test_sighup_on_a_ledger_that_takes_nothing_keeps_the_old_hosts_and_goes_on_to_watch_them(
    process: Process,
) -> None:
    """Dies when the old service is ended before it is known that another one can begin."""
    process.start()
    process.hears("WATCHDOG=1")
    process.write("balancerd.toml", CONFIGURATION.replace('"h2"', '"h9"'))
    assert process.running is not None
    with closing(sqlite3.connect(process.directory / "state" / "ledger.db")) as ledger:
        ledger.execute("BEGIN IMMEDIATE")
        process.running.send_signal(signal.SIGHUP)
        process.hears("READY=1", "the ledger cannot be written")
        process.hears("WATCHDOG=1")
    process.running.send_signal(signal.SIGHUP)
    process.hears("READY=1", "first cycle")
    until(lambda: "watching h1, h9" in process.log())


def test_status_says_why_a_host_is_not_known(process: Process) -> None:
    """Dies if it only counts them: whoever mistyped a URI would look for the reason in the log."""
    more = '\n[[host]]\nname = "h3"\nuri = "test:///nowhere/node.xml"\n'
    process.write("balancerd.toml", CONFIGURATION + more)
    process.start()
    process.hears("WATCHDOG=1")
    done = balancerctl("status", record=process.directory / "state")
    (line,) = [line for line in done.stdout.splitlines() if "nowhere" in line]
    assert line.split(":")[0].split()[-1] == "h3"
