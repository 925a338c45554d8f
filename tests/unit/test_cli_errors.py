"""Exit codes, and one sentence for whatever goes wrong."""

import getpass
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from balancerd.cli import root
from balancerd.cli.errors import Exit
from tests.records import SCENARIO, balancerctl, make_record

COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-9]m")
COMMAND = Path(sys.executable).with_name("balancerctl")


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("record")
    make_record(directory)
    (directory / "small.toml").write_text(SCENARIO)
    (directory / "wrong.toml").write_text('summary = "x"\nobjectiv = "pack"\nmode = 1\n')
    (directory / "right.toml").write_text('summary = "x"\n')
    (directory / "old.json").write_text('{"version": 0}')
    (directory / "trace").mkdir()
    (directory / "trace/vm1").write_text("12\nmany\n" + "5\n" * 10)
    return directory


@pytest.mark.parametrize("line", ["status -o json", "hosts", "vms -o csv", "export", "resume"])
def test_an_output_that_is_closed_is_one_that_nobody_reads(record: Path, line: str) -> None:
    """Dies when a verb does what it was asked, such as to resume, and then says that it failed."""
    call = f"{COMMAND} {line} --record {record}"
    done = subprocess.run(f"{call} >&- <&-", shell=True, capture_output=True, text=True)
    assert done.returncode == (Exit.NOT_RUNNING if "status" in line else Exit.DONE)
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("stats", Exit.INVALID, 'there is no verb "stats" (did you mean "status"?)'),
        ("plan shw", Exit.INVALID, 'there is no verb "plan shw" (did you mean "show"?)'),
        ("plan show x", Exit.INVALID, "'x' is not a valid whole number"),
        ("plan show 77", Exit.INVALID, "there is no plan 77"),
        ("hosts -o yaml", Exit.INVALID, "'yaml' is not one of"),
        ("hosts --frob", Exit.INVALID, "No such option"),
        ("hosts --record {d}/none", Exit.INVALID, "there is no record in"),
        ("vms --host h9", Exit.INVALID, 'there is no host "h9"'),
        ("history --since yesterday", Exit.INVALID, '"yesterday" is neither a span'),
        ("history --since 2026-03-02T08:00:00", Exit.INVALID, "nor a time with an offset"),
        ("pause --for 2", Exit.INVALID, '"2" is not a duration'),
        ("pause --for 0s", Exit.INVALID, "must be more than 0s"),
        ("approve 1", Exit.NOT_RUNNING, "nobody would approve 1"),
        ("approve x", Exit.INVALID, "'x' is not a valid whole number"),
        ("approve 77", Exit.INVALID, "there is no plan 77"),
        ("drain h7", Exit.INVALID, 'there is no host "h7"'),
        ("abort nobody", Exit.INVALID, 'there is no VM "nobody"'),
        ("policy check {d}/none.toml", Exit.INVALID, "none.toml: no such file or directory"),
        ("plan new --snapshot {d}/none --policy {d}/right.toml", Exit.INVALID, "no such file"),
        ("plan new --snapshot {d}/old.json --policy {d}/right.toml", Exit.INVALID, "version 0"),
        ("plan new --snapshot {d} --policy {d}/right.toml", Exit.INVALID, "is a directory"),
        ("plan new --snapshot {d}/right.toml --policy {d}/right.toml", Exit.INVALID, "not JSON"),
        ("simulate {d}/small.toml --trace {d}/none", Exit.INVALID, "no such file or directory"),
        ("simulate {d}/small.toml --trace {d}/trace", Exit.INVALID, 'vm1:2: "many" is not a whole'),
        ("simulate {d}/small.toml --record {d}", Exit.INVALID, "holds a record already"),
        ("simulate {d}/right.toml", Exit.INVALID, "right.toml:1: name: is missing"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    record: Path, line: str, code: Exit, words: str
) -> None:
    done = balancerctl(*line.format(d=record).split(), record=record)
    assert words in done.stderr
    assert (done.returncode, done.stdout) == (code, "")
    assert "Traceback" not in done.stderr


def test_every_problem_of_every_file_is_told(record: Path) -> None:
    wrong, right = record / "wrong.toml", record / "right.toml"
    done = balancerctl("policy", "check", wrong, right)
    assert done.returncode == Exit.INVALID
    assert done.stderr.splitlines() == [
        f'{wrong}:2: objectiv: unknown key (did you mean "objective"?)',
        f'{wrong}:3: mode: must be one of "observe", "advise", "act", not 1',
    ]
    assert done.stdout == f"{right}: x (now: advise, spread)\n"


def test_without_a_record_in_the_usual_place_balancerd_does_not_run() -> None:
    if Path("/var/lib/balancerd/ledger.db").exists():
        pytest.skip("this machine has a balancerd of its own")
    done = balancerctl("status")
    assert done.returncode == Exit.NOT_RUNNING
    assert "there is no record in /var/lib/balancerd" in done.stderr


@pytest.mark.parametrize("content", [b"", b"hello", b"SQLite format 3\0" + bytes(84)])
def test_what_is_no_ledger_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ledger.db").write_bytes(content)
    for command in (("hosts",), ("pause",), ("export",)):
        done = balancerctl(*command, record=tmp_path)
        assert done.returncode == Exit.INVALID
        assert "ledger.db" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert (tmp_path / "ledger.db").read_bytes() == content


def test_a_damaged_ledger_is_one_sentence(record: Path, tmp_path: Path) -> None:
    content = bytearray((record / "ledger.db").read_bytes())
    content[5000:] = b"\xff" * (len(content) - 5000)
    (tmp_path / "ledger.db").write_bytes(content)
    done = balancerctl("hosts", record=tmp_path)
    assert done.returncode in (Exit.FAILED, Exit.INVALID)
    assert re.fullmatch(r"balancerctl: .*ledger\.db.*\n", done.stderr)


def test_a_reader_that_has_seen_enough_ends_the_command_quietly(record: Path) -> None:
    done = subprocess.run(
        f"'{COMMAND}' export --samples --record '{record}' | head -1",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


@pytest.mark.parametrize("verb", [["plan", "show"], ["export"], ["vms", "-o", "json"]])
def test_a_pipe_that_nobody_reads_is_no_failure(record: Path, verb: list[str]) -> None:
    """Dies when only our own BrokenPipeError is caught: rich and click make exit codes of it."""
    ours, theirs = os.pipe()
    os.close(ours)
    done = subprocess.run(
        [COMMAND, *verb, "--record", record], stdout=theirs, stderr=subprocess.PIPE, check=False
    )
    os.close(theirs)
    assert (done.returncode, done.stderr) == (Exit.DONE, b"")


def test_help_needs_no_record_and_names_every_verb() -> None:
    done = balancerctl("--help")
    assert done.returncode == Exit.DONE
    assert all(re.search(rf"^  {verb} ", done.stdout, re.MULTILINE) for verb in root.VERBS)
    assert balancerctl().returncode == Exit.INVALID, "no verb at all is wrong usage"


@pytest.mark.parametrize("group", ["plan", "policy", "audit"])
def test_help_of_a_group_cuts_no_sentence_off(group: str) -> None:
    assert "..." not in balancerctl(group, "--help").stdout.partition("Commands:")[2]


def test_an_interruption_before_everything_is_loaded_is_no_traceback(tmp_path: Path) -> None:
    """Dies when the command's module imports the verbs by itself."""
    (tmp_path / "click.py").write_text("raise KeyboardInterrupt")
    done = subprocess.run(
        [sys.executable, "-c", "from balancerd.cli import main; main()"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (Exit.FAILED, "balancerctl: interrupted\n")


NOBODY = 65534


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize(
    ("mode", "line", "words"),
    [
        (0o700, "status", "{d}: permission denied; only root may look at it"),
        (0o750, "status", "only root and the group root may look at it"),
        (0o755, "pause", "{d}/ledger.db: permission denied; only root may tell"),
    ],
)
def test_who_may_not_is_told_who_may(tmp_path: Path, mode: int, line: str, words: str) -> None:
    """Dies when click looks first, and speaks of an option that nobody gave."""
    record = tmp_path / "record"
    record.mkdir()
    make_record(record)
    for directory in (tmp_path, *tmp_path.parents):
        if directory == tmp_path or directory.name.startswith(("pytest-", "popen-")):
            directory.chmod(0o755)
    record.chmod(mode)
    # What is loaded late is loaded while Python can be read.
    assert getpass.getuser()
    assert (record.owner(), record.group()) == ("root", "root")
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        done = balancerctl(*line.split(), record=record)
    finally:
        os.seteuid(0)
        os.setegid(0)
    assert (done.returncode, words.format(d=record) in done.stderr) == (Exit.FAILED, True), done


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["policy", "keys"], Exit.DONE),
        (["stats"], Exit.INVALID),
        (["status", "--record", "{d}"], Exit.NOT_RUNNING),
    ],
)
def test_the_process_ends_with_the_code(record: Path, arguments: list[str], code: Exit) -> None:
    words = [argument.format(d=record) for argument in arguments]
    assert subprocess.run([COMMAND, *words], capture_output=True, check=False).returncode == code


def test_a_terminal_without_unicode_is_served_too(record: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1", "BALANCERD_RECORD": str(record)}
    for arguments in (["plan", "show"], ["plan", "show", "-o", "json"], ["drain", "h\udcff"]):
        done = subprocess.run(
            [COMMAND, *arguments], env=environment, capture_output=True, check=False
        )
        assert done.returncode in (Exit.DONE, Exit.INVALID)
        assert b"fault" not in done.stderr


def test_a_fault_of_ours_is_one_sentence_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(root.root, "invoke", broken)
    monkeypatch.delenv("BALANCERD_DEBUG", raising=False)
    assert root.run(["status"]) == Exit.FAILED
    told = capsys.readouterr().err
    assert "a fault in balancerctl (ZeroDivisionError: by nothing)" in told
    assert "Traceback" not in told


def on_terminal(arguments: list[str], until: str = "", **variables: str) -> str:
    """What a command shows on a terminal; interrupted as soon as a pattern was shown."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", **variables}
    process = subprocess.Popen([COMMAND, *arguments], stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    killer = threading.Timer(60, process.kill)  # a command that never ends fails, and hangs nothing
    killer.start()
    with suppress(OSError):  # the other end is closed
        while text := os.read(ours, 65536):
            shown += text
            if until and re.search(until, shown.decode(errors="replace"), re.DOTALL):
                process.send_signal(signal.SIGINT)
                until = ""
    os.close(ours)
    killer.cancel()
    assert process.wait(30) == Exit.DONE
    return shown.decode()


def test_there_is_colour_on_a_terminal_but_not_with_no_color(record: Path) -> None:
    arguments = ["hosts", "--record", str(record)]
    plain = dict.fromkeys(("NO_COLOR",), "")
    assert re.search("\x1b\\[[0-9;]*3[0-9]m", on_terminal(arguments, **plain))
    assert not re.search("\x1b\\[[0-9;]*3[0-9]m", on_terminal(arguments, NO_COLOR="1"))


def test_watching_shows_it_again_until_interrupted(record: Path) -> None:
    arguments = ["hosts", "--watch", "0.1", "--record", str(record)]
    shown = on_terminal(arguments, until="VERDICT.*VERDICT.*VERDICT")
    assert "Traceback" not in shown
