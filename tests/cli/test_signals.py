import contextlib
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from npattn import cli
from tests.cli.running import SMALL, posix

SLOW = {
    "while it computes": "golden.golden = wait",
    "while it computes in threads": """
from concurrent.futures import ThreadPoolExecutor
def wait_in_threads(*_, **__):
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(wait, range(2)))
golden.golden = wait_in_threads""",
    "while it writes": """
import zipfile
writestr, written = zipfile.ZipFile.writestr, []
def write(*arguments, **options):
    written.append(writestr(*arguments, **options))
    if len(written) == 3: wait()
zipfile.ZipFile.writestr = write""",
}


@contextlib.contextmanager
def waiting(how, *arguments, ignored=""):
    """Start the command, and give it when it has come to the place where it waits."""
    code = f"""
import os, signal, sys, time
from npattn.cli import golden, main
for name in ("SIGTERM", "SIGHUP"):  # whatever the tests' own parent ignores
    signal.signal(getattr(signal, name), signal.SIG_IGN if name == "{ignored}" else signal.SIG_DFL)
def wait(*_, **__):
    os.write(1, b"waiting")
    time.sleep(600)
{SLOW[how]}
sys.exit(main())
"""
    command, pipe = [sys.executable, "-c", code, *arguments], subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe) as process:
        try:
            assert process.stdout.read(7) == b"waiting"
            yield process
        finally:
            process.kill()  # one that a failure has left


@posix
@pytest.mark.parametrize(
    ("how", "name", "status", "force"),
    [
        ("while it computes", "SIGTERM", 143, False),
        ("while it computes in threads", "SIGTERM", 143, True),
        ("while it writes", "SIGTERM", 143, False),
        ("while it writes", "SIGHUP", 129, True),
    ],
)
def test_signals_that_end_the_command_leave_nothing_half_written(folder, how, name, status, force):
    if force:
        (folder / "case.npz").write_bytes(b"old")
    with waiting(how, "golden", "eca", *SMALL, "-o", "case.npz", *["--force"] * force) as process:
        assert len(list(folder.iterdir())) == 1 + force  # the temporary file
        process.send_signal(getattr(signal, name))
        _, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (status, b"")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == ({"case.npz": b"old"} if force else {})


@posix
def test_a_signal_that_is_ignored_stays_so(folder):
    with waiting("while it computes", "golden", "eca", *SMALL, ignored="SIGHUP") as process:
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=300)
    assert process.returncode == 143
    assert list(folder.iterdir()) == []


@posix
def test_handlers_of_signals_are_those_of_the_caller_afterwards(command):
    def own(number, frame):
        raise AssertionError

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        signal.signal(signal.SIGTERM, own)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        assert command("list")[0] == 0
        assert signal.getsignal(signal.SIGTERM) is own
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_command_runs_in_a_thread_too(command):
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(cli.main, ["list"]).result() == 0
