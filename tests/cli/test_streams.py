import errno
import io
import os
import shlex
import struct
import sys

import pytest

from npattn import cli
from npattn.cli.streams import complain, terminal_width
from tests.cli.running import SMALL, assert_one_complaint, full, posix, rows, run_for_no_reader, run_in_shell


@pytest.mark.parametrize(
    ("arguments", "unbuffered"),
    [(["list"], "1"), (["--help"], "")],
)
def test_reader_that_has_seen_enough_is_no_error(arguments, unbuffered):
    assert run_for_no_reader(*arguments, unbuffered=unbuffered) == (0, b"")


@full
@pytest.mark.parametrize(("arguments", "unbuffered"), [(["--version"], ""), (["list"], "1")])
def test_output_that_cannot_be_written_is_told_in_one_line(arguments, unbuffered):
    status, out, err = run_in_shell(">/dev/full", *arguments, unbuffered=unbuffered)
    assert_one_complaint((status, out, err), os.strerror(errno.ENOSPC))


@posix
@pytest.mark.parametrize("arguments", [["list"], ["--help"]])
def test_closed_output_is_told_in_one_line(arguments):
    assert_one_complaint(run_in_shell(">&-", *arguments), "npattn: stdout is closed; expected one to write to")


@posix
def test_output_that_is_open_for_reading_alone_is_told_in_one_line(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    assert_one_complaint(run_in_shell(f"1<{shlex.quote(str(tmp_path / 'file'))}", "list"), os.strerror(errno.EBADF))


@posix
def test_closed_output_stops_golden_before_a_file_is_written(folder):
    assert run_in_shell(">&-", "golden", "eca", "channels=3", *SMALL)[0] == 2
    assert list(folder.iterdir()) == []


@posix
@pytest.mark.parametrize(
    ("redirections", "arguments"),
    [
        ("2>&-", ["golden", "eca", "-o", "missing/eca.npz"]),
        (">&- 2>&-", ["check", "ecaa"]),
        pytest.param("2>/dev/full", ["lits"], marks=full),
        pytest.param("2>/dev/full", ["verify", "a.npz", "b.npz"], marks=full),
        pytest.param(">/dev/full 2>/dev/full", ["list"], marks=full),
    ],
)
def test_complaint_that_cannot_be_written_goes_nowhere_and_the_status_stays(folder, redirections, arguments):
    assert run_in_shell(redirections, *arguments) == (2, "", "")
    assert list(folder.iterdir()) == []


TERMINAL = """
import sys
from npattn import cli
class Terminal:
    closed = False
    def isatty(self): return True
    def __getattr__(self, name): return getattr(self.stream, name)
terminal = Terminal()
terminal.stream = sys.stderr
if sys.stderr: sys.stderr = terminal
sys.exit(cli.main())
"""


@posix
@pytest.mark.parametrize("redirections", ["2>&-", pytest.param("2>/dev/full", marks=full)])
def test_progress_that_cannot_be_shown_breaks_no_run(redirections, command):
    status, out, err = run_in_shell(redirections, "check", "eca", "--size=2x2", code=TERMINAL)
    assert (status, err) == (0, "")
    assert [row["verdict"] for row in rows(out)] == ["ok"]
    assert "checking" not in out


@pytest.mark.parametrize(
    "arguments",
    [
        ["golden", "se", "reductoin=3"],
        ["golden", "ops.masked_attention"],
        ["list", "--family", "self-atention"],
        ["check", "eca", "--jobs=0"],
        ["show", "eca", "-o", f"{'long' * 30}/eca.png"],
    ],
)
def test_a_complaint_is_broken_between_words_on_a_terminal_alone(command, monkeypatch, arguments):
    monkeypatch.setenv("COLUMNS", "60")
    status, out, whole = command(*arguments)
    assert (status, out, whole.count("\n")) == (2, "", 1)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    status, out, broken = command(*arguments)
    assert (status, out) == (2, "")
    first, *others = broken.splitlines()
    assert others
    assert all(line.startswith("  ") for line in others)
    assert broken.split() == whole.split()
    assert all(len(line) <= 60 or len(line.split()) == 1 for line in (first, *others))


@posix
@pytest.mark.parametrize("columns", [40, 100])
def test_the_width_is_that_of_the_terminal_that_stderr_is(monkeypatch, columns):
    fcntl, termios = pytest.importorskip("fcntl"), pytest.importorskip("termios")
    reader, writer = os.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    monkeypatch.delenv("COLUMNS", raising=False)
    with os.fdopen(writer, "w") as terminal, os.fdopen(reader, "rb", buffering=0) as screen:
        monkeypatch.setattr(sys, "stderr", terminal)
        assert terminal_width() == columns
        complain("word " * 30)
        shown = screen.read(1000).decode().splitlines()
    assert max(map(len, shown)) <= columns
    assert len(shown[0]) > columns - len("word ")


def test_the_width_of_no_terminal_is_80_columns(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert terminal_width() == 80


def test_a_closed_stream_in_place_of_stderr_is_none(command, monkeypatch):
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    assert cli.main(["check", "eca", "--size=2x2"]) == 0
    assert cli.main(["check", "ecaa"]) == 2
