"""How the tests run the command in a process of its own, and read what it says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-c", "import sys; from npattn.cli import main; sys.exit(main())"]
ROW = re.compile(
    r"(?P<key>\S+) +(?P<input>[\dx]+) +(?P<params>[\d,]+) +(?P<forward>[\d.e+-]+ m?s) +(?P<backward>[\d.e+-]+ m?s) "
    r"+(?P<error>\S+)  (?P<verdict>ok|WRONG)"
)
SMALL = "--height=2", "--width=3"
posix = pytest.mark.skipif(os.name != "posix", reason="a shell's redirections")
full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux's device that is always full")


def rows(out):
    """Parse what check prints between the heading and the verdict."""
    return [match.groupdict() for match in map(ROW.fullmatch, out.splitlines()) if match]


def assert_one_complaint(result, *words):
    status, out, err = result
    assert status == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert err.startswith("npattn")
    for word in words:
        assert word in err


def run_in_shell(redirections, *arguments, unbuffered="", code=None):
    """Run the command with a shell's redirections: exit status, stdout, stderr."""
    command = [sys.executable, "-c", code] if code else COMMAND
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirections}', "sh", *command, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def run_for_no_reader(*arguments, unbuffered=""):
    """Run the command with a pipe for stdout that nobody reads: exit status, stderr."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*COMMAND, *arguments],
        stdout=writer,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        check=False,
    )
    os.close(writer)
    return done.returncode, done.stderr
