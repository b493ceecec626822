import json
import re
import shlex
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from npattn import CATALOGUE, cli, oracle, training
from npattn.cli import list as listing
from tests.cli.running import assert_one_complaint

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["required: COMMAND", "see npattn --help"]),
        (["lits"], ["invalid choice: 'lits'; did you mean 'list'? (choose from 'list', 'check', 'show', "]),
        (["zzz"], ["invalid choice: 'zzz' (choose from 'list', "]),
        (["list", "--family", "chanel"], ["invalid choice: 'chanel'; did you mean 'channel'? (choose from 'channel',"]),
        (["list", "--family", "foo"], ["invalid choice: 'foo' (choose from 'channel', "]),
        (["verify", "a", "b", "--explian"], ["unrecognized arguments: --explian; did you mean '--explain'?"]),
        (["golden", "eca", "--hieght=3"], ["unrecognized arguments: --hieght=3; did you mean '--height'?"]),
        (["golden", "eca", "--zzz"], ["unrecognized arguments: --zzz (see npattn golden --help)"]),
        (["list", "se"], ["unrecognized arguments: se"]),
        (["list", "one\ntwo"], ["npattn list: unrecognized arguments: one two (see npattn list --help)"]),
        (["--colour", "list"], ["--colour"]),
        (["check", "scse"], ["npattn check: unknown system 'scse'", "did you mean 'se'?", "npattn list"]),
        (["check", "se", "ecaa"], ["unknown system 'ecaa'", "did you mean 'eca'?"]),
        (["check", "zzz"], ["unknown system 'zzz'; npattn list names them all"]),
        (["check", "SE\n"], [r"unknown system 'SE\n'"]),
        (["check", "EfficientChannelAttention"], ["did you mean 'eca'?"]),
        (
            ["trace", "ops.softmax"],
            [
                "'ops.softmax' is a primitive, which only npattn golden takes; expected npattn golden ops.softmax",
                " --steps, or a system of which it is a step: double",
            ],
        ),
        (
            ["golden", "ops.masked_attention"],
            ["'ops.masked_attention' is no system, but a step of some; expected one of these: sdpa, mhsa"],
        ),
        (["show", "masked_attention"], ["'masked_attention' is no system, but a step of some", "sdpa"]),
        (["golden", "--suite", "ops.take", "-o", "x"], ["expected one of these: soft-hard"]),
        (["golden", "foo"], ["unknown system 'foo'; npattn list names them all"]),
        (["golden", "--suite", "nosuch", "-o", "x"], ["unknown system 'nosuch'; npattn list names them all"]),
        (["trace", "nosuch"], ["unknown system 'nosuch'; npattn list names them all"]),
        (["trace", "multihead"], ["unknown system 'multihead'; did you mean 'mhsa'?"]),
        (["golden", "residual", "inner=foo"], ["inner='foo' is no key of a system (npattn list names them all)"]),
        (["golden", "residual", "inner=ChannelAttention"], ["did you mean 'cam'?"]),
        (["check", ""], ["unknown system ''"]),
        (["show"], ["npattn show: ", "required: KEY"]),
        (["trace"], ["npattn trace: the following arguments are required: KEY (see npattn trace --help)"]),
        (["show", "se", "eca"], ["unrecognized arguments: eca"]),
        (["show", "ec"], ["npattn show: unknown system 'ec'", "did you mean 'eca'?"]),
        (["golden"], ["npattn golden: which system? expected a KEY", "--suite"]),
        (["golden", "ec"], ["npattn golden: unknown system 'ec'", "did you mean 'eca'?"]),
        (["golden", "eca", "--seed", "1", "channels=3", "--colour"], ["unrecognized arguments: --colour"]),
        (["verify", "a.npz"], ["npattn verify: ", "required: RESULTS"]),
        (["verify", "a.npz", "b.npz", "c.npz"], ["unrecognized arguments: c.npz"]),
    ],
)
def test_unknown_words_are_refused_in_one_line(command, arguments, words):
    assert_one_complaint(command(*arguments), *words)


COMMANDS = next(action.choices for action in cli.make_parser()._actions if action.dest == "command")


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_fits_80_columns_and_its_examples_are_understood(command, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "80")
    status, out, err = command(*name.split(), "--help")
    assert (status, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    examples = [line.strip() for line in out.partition("\nexamples:\n")[2].splitlines() if line.startswith("  npattn")]
    assert examples
    for example in examples:
        arguments = cli.make_parser().parse_args(shlex.split(example)[1:])
        assert arguments.command == (name or arguments.command)
        named = {*(getattr(arguments, "keys", None) or []), getattr(arguments, "key", None)} - {None}
        assert named <= CATALOGUE.keys() | training.SYSTEMS.keys()


def test_version_is_that_of_the_installed_package(command):
    assert command("--version") == (0, f"npattn {metadata.version('npattn')}\n", "")


ALONE = f"""
import importlib.metadata, sys
def nothing(name):
    raise importlib.metadata.PackageNotFoundError(name)
importlib.metadata.Distribution.from_name = nothing
sys.modules["matplotlib"] = None
sys.path.insert(0, {str(ROOT)!r})
import npattn
from npattn.cli import main
assert npattn.__file__.startswith({str(ROOT)!r})
print(npattn.__version__)
golden = ["golden", "eca", "channels=3", "--height=2", "--width=3"]
sys.exit(main(["list"]) or main(["check", "eca", "--size=2x2"]) or main(golden) or main(["--version"]))
"""


def test_a_folder_on_the_path_does_all_without_matplotlib_and_an_installed_distribution(folder):
    done = subprocess.run([sys.executable, "-I", "-c", ALONE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    first, *_, last = done.stdout.splitlines()
    assert (first, last) == ("0+unknown", "npattn 0+unknown")
    with zipfile.ZipFile("eca-float16.npz") as archive:
        assert json.loads(archive.read("header.json"))["npattn"] == "0+unknown"
    assert oracle.load("eca-float16.npz").module.channels == 3


def test_python_m_npattn_is_the_command():
    line = [sys.executable, "-m", "npattn", "check", "zzz"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "python -m npattn check: unknown system 'zzz'; npattn list names them all\n"


@pytest.mark.parametrize("arguments", [["lits"], ["check", "ecaa"], ["check", "--size"], ["--help"], ["golden", "-h"]])
def test_the_command_goes_in_its_own_messages_by_the_name_that_it_is_given(command, arguments):
    status, out, err = command(*arguments)
    found = command(*arguments, prog="python -m npattn")
    assert found[0] == status
    assert found[1].split() == out.replace("usage: npattn", "usage: python -m npattn", 1).split()  # wrapped elsewhere
    assert found[2] == re.sub(r"^npattn|(?<=see )npattn", "python -m npattn", err)


def test_a_command_by_another_name_that_cannot_begin_says_which_it_is(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", None)
    assert cli.main(["list"], prog="python -m npattn") == 2
    assert capsys.readouterr().err == "python -m npattn: stdout is closed; expected one to write to\n"


def test_console_script_is_this_command():
    (script,) = metadata.entry_points(group="console_scripts", name="npattn")
    assert script.load() is cli.main


def test_arguments_are_the_process_own_unless_given(command, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["npattn", "list"])
    assert cli.main() == 0
    assert capsys.readouterr().out == command("list")[1]


def test_interruption_leaves_without_a_traceback(command, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(listing, "run_list", interrupt)
    try:
        assert command("list") == (130, "", "\n")
    except KeyboardInterrupt:  # which would end the whole test run
        pytest.fail("the caller is interrupted too")


def test_mistakes_in_the_code_are_not_passed_off_as_bad_input(monkeypatch):
    def fail(_):
        raise ValueError("a bug")

    monkeypatch.setattr(listing, "run_list", fail)
    with pytest.raises(ValueError, match="a bug"):
        cli.main(["list"])
