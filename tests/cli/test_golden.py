import errno
import os
import re
import sys

import numpy as np
import pytest

import npattn
from npattn.cli import golden
from tests.cli.running import SMALL, assert_one_complaint, posix, run_in_shell
from tests.naming import for_each


def test_golden_writes_the_case_that_is_asked_for(command, folder):
    status, out, err = command(
        *["golden", "eca", "channels=3", "--batch", "2", *SMALL, "kernel_size=5", "--seed=7"],
        *["--dtype", "bfloat16", "-o", "case.npz"],
    )
    assert (status, err) == (0, "")
    assert [path.name for path in folder.iterdir()] == ["case.npz"]
    case = npattn.oracle.load("case.npz")
    assert case.module == npattn.EfficientChannelAttention(channels=3, kernel_size=5)
    assert (case.dtype, case.seed, case.inputs["x"].shape) == ("bfloat16", 7, (2, 3, 2, 3))
    direct = npattn.oracle.golden(case.module, batch=2, height=2, width=3, dtype="bfloat16", seed=7)
    for group in ("inputs", "params", "upstream", "expected", "budget"):
        np.testing.assert_equal(getattr(case, group), getattr(direct, group))
    assert "case.npz: Case(EfficientChannelAttention(channels=3" in out


@for_each(
    ("arguments", "words"),
    [
        (
            ["eca", "chanels=3"],
            ["EfficientChannelAttention: unknown hyperparameter 'chanels'; did you mean 'channels'?"],
        ),
        (["eca", "zzz=3"], ["unknown hyperparameter 'zzz' (expected channels, kernel_size, gamma, b)"]),
        (["eca", "channels"], ["'channels' is no FIELD=VALUE, such as channels=64"]),
        (["eca", "=3"], ["'=3' is no FIELD=VALUE"]),
        (["eca", "channels=3", "channels=4"], ["channels is given twice"]),
        (["eca", "channels=3.5"], ["channels=3.5 is a float"]),
        (["eca", "channels="], ["channels='' is a str"]),
        (["eca", "channels=" + "[" * 5000], ["channels='[[["]),
        (["eca", "channels=" + "-" * 9000 + "1"], ["channels='----"]),
        (["eca", "channels=0x"], ["channels='0x' is a str"]),
        (["eca", "channels='\\d'"], ["is a str"]),
        (["eca", "kernel_size=4"], ["kernel_size=4"]),
        (["eca", "gamma=1e-320"], ["gamma=1e-320"]),
        (["cam", "variant=cod"], ["variant='cod'; did you mean 'code'?"]),
        (["mhsa", "channels=9"], ["expected a divisor of channels=9"]),
        (["coordinate", "training=true"], ["training='true' is a str; expected True or False"]),
        (["residual", "inner=camm"], ["Residual: inner='camm' is no key of a system; did you mean 'cam'?"]),
        (["residual", "inner.chanels=3"], ["SqueezeExcitation: unknown hyperparameter 'chanels'; did you mean"]),
        (["eca", "channels.x=3"], ["channels is no system"]),
        (["eca", "channels=1000000000000000000000"], ["expected no more than 67,108,864"]),
        (["eca", "--batch=1024", "--height=1024", "--width=1024"], ["expected no more than 67,108,864"]),
        (["soft-hard", "k=7", *SMALL], ["expected at least k=7 positions"]),
        (["eca", "--height=0"], ["argument --height: '0' is no size; expected a whole number from 1 to 1024"]),
        (["eca", "--width=1025"], ["argument --width: '1025' is no size"]),
        (["eca", "--batch=x"], ["argument --batch: 'x' is no size"]),
        (["eca", "--dtype=fp17"], ["argument --dtype: dtype='fp17' (expected 'float32'"]),
        (["eca", "--dtype=fp8"], ["argument --dtype: dtype='fp8'; did you mean 'float8_e4m3' or 'float8_e5m2'?"]),
        (["eca", "--dtype="], ["argument --dtype: dtype='' (expected"]),
        (["eca", "--dtype=a\nb"], ["argument --dtype: dtype='a\\nb' (expected"]),
        (["se", "ratio=8"], ["SqueezeExcitation: unknown hyperparameter 'ratio'; did you mean 'reduction'?"]),
        (["mhsa", "num_heads=4"], ["unknown hyperparameter 'num_heads'; did you mean 'heads'?"]),
        (
            ["residual", "inner.ratio=8"],
            ["SqueezeExcitation: unknown hyperparameter 'ratio'; did you mean 'reduction'"],
        ),
        (["residual", "channels=8"], ["Residual: unknown hyperparameter 'channels'; did you mean 'inner.channels'?"]),
        (["eca", "-o", "missing/eca.npz"], ["there is no folder missing"]),
        (["eca", "-o", "."], [". is a folder"]),
    ],
)
def test_golden_refuses_in_one_line_and_writes_nothing(command, folder, arguments, words):
    assert_one_complaint(command("golden", *arguments), "npattn golden: ", *words)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("fields", "module"),
    [
        (["cam", "variant=code", "channels=4"], npattn.ChannelAttention(4, "code")),
        (["cam", "variant='code'", "channels=4"], npattn.ChannelAttention(4, "code")),
        (["cbam-channel", "pools=('max',)", "channels=4"], npattn.CBAMChannelGate(4, 8, ("max",))),
        (["gc", "fuse=add", "channels=4"], npattn.GlobalContext(4, 4, ("add",))),
        (["gc", "fuse=add,scale", "channels=4"], npattn.GlobalContext(4, 4, ("add", "scale"))),
        (["mhsa", "heads=3", "channels=9"], npattn.MultiHeadSelfAttention(9, 3)),
        (["residual", "inner.channels=4", "inner=cam"], npattn.Residual(npattn.ChannelAttention(4))),
        (["residual", "inner.reduction=2"], npattn.Residual(npattn.SqueezeExcitation(32, 2))),
    ],
)
def test_golden_reads_hyperparameters_in_any_order(command, folder, fields, module):
    assert command("golden", *fields, *SMALL, "-o", "case.npz")[0] == 0
    assert npattn.oracle.load("case.npz").module == module


def test_golden_makes_a_case_without_images_that_verify_judges(command, folder):
    status, out, err = command("golden", "eca", "channels=3", "--batch=0", *SMALL)
    assert (status, err) == (0, "")
    assert re.search(r"^output +0x3x2x3 +- +[\d.?]+ +-$", out, re.MULTILINE), out
    case = npattn.oracle.load("eca-float16.npz")
    assert case.inputs["x"].shape == (0, 3, 2, 3)
    np.savez("results.npz", **case.expected)
    assert command("verify", "eca-float16.npz", "results.npz", "--all")[0] == 0


def test_golden_leaves_an_existing_file_untouched_and_computes_nothing(command, folder, monkeypatch):
    monkeypatch.setattr(golden, "golden", lambda *_, **__: pytest.fail("computed in vain"))
    (folder / "eca-float16.npz").write_bytes(b"precious")
    assert_one_complaint(command("golden", "eca"), "npattn golden: eca-float16.npz exists already", "--force")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"eca-float16.npz": b"precious"}


def test_golden_replaces_a_file_by_force_with_the_same_bytes(command, small, folder):
    before = (folder / "eca-float16.npz").read_bytes()
    (folder / "eca-float16.npz").write_bytes(b"old")
    assert command("golden", "eca", "channels=3", *SMALL, "--force")[0] == 0
    assert (folder / "eca-float16.npz").read_bytes() == before


def test_golden_that_is_interrupted_leaves_nothing(command, folder, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(golden, "golden", interrupt)
    assert command("golden", "eca") == (130, "", "\n")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", ["an empty path; expected the name of a file"]),
        ("a\0b.npz", [r"a\x00b.npz: no path holds NUL"]),
        ("new/", ["new/ names a folder; expected the name of a file"]),
        ("missing/eca.npz", ["missing/eca.npz: there is no folder missing"]),
        pytest.param("n" * 300, [os.strerror(errno.ENAMETOOLONG)], marks=posix),
        ("old.npz/eca.npz", ["old.npz/eca.npz: there is no folder old.npz"]),
        pytest.param("pipe.npz", ["pipe.npz is a FIFO; expected the name of a file"], marks=posix),
        pytest.param("link.npz", ["link.npz is a symbolic link to nothing"], marks=posix),
        pytest.param("red\x1b[31m\n/a.npz", [r"there is no folder red\x1b[31m"], marks=posix),
    ],
)
def test_golden_refuses_what_it_cannot_write_to_and_computes_nothing(command, folder, monkeypatch, name, words):
    monkeypatch.setattr(golden, "golden", lambda *_, **__: pytest.fail("computed in vain"))
    (folder / "old.npz").write_bytes(b"old")
    if os.name == "posix":
        os.mkfifo("pipe.npz")
        (folder / "link.npz").symlink_to("nowhere")
    before = sorted(path.name for path in folder.iterdir())
    for force in ([], ["--force"]):
        result = command("golden", "eca", "-o", name, *force)
        assert_one_complaint(result, "npattn golden: ", *words)
        assert result[2][:-1].isprintable()
    assert sorted(path.name for path in folder.iterdir()) == before
    assert (folder / "old.npz").read_bytes() == b"old"


@posix
def test_golden_writes_the_file_that_a_link_leads_to(command, folder):
    (folder / "real.npz").write_bytes(b"old")
    (folder / "link.npz").symlink_to("real.npz")
    assert command("golden", "eca", "channels=3", *SMALL, "-o", "link.npz", "--force")[0] == 0
    assert (folder / "link.npz").is_symlink()
    assert npattn.oracle.load(folder / "real.npz").module.channels == 3


@posix
def test_a_full_disk_is_told_once_and_nothing_is_left(folder):
    code = "import resource, sys; from npattn.cli import main; "
    code += "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000)); sys.exit(main())"
    result = run_in_shell("", "golden", "eca", "channels=3", *SMALL, code=code)
    assert_one_complaint(result, f"npattn golden: eca-float16.npz: {os.strerror(errno.EFBIG)}")
    assert list(folder.iterdir()) == []


def test_a_bar_on_a_terminal_counts_the_passes_and_is_wiped(command, folder, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    status, _, err = command("golden", "eca", "channels=3", *SMALL)
    assert status == 0
    lines = err.split("\r\033[K")
    assert lines[1] == "computing eca in float16"
    bars = [line for line in lines if line.endswith(" passes  computing eca in float16")]
    assert [bar.partition("] ")[2].partition(" passes")[0] for bar in bars] == [f"{n} of 11" for n in range(1, 12)]
    assert bars[4].startswith("[#########...........]")
    assert lines[-1] == ""


def test_digits_can_be_counted_on_a_sample_or_not_at_all(command, folder):
    assert command("golden", "eca", "channels=3", *SMALL, "--certify", "none", "-o", "none.npz")[0] == 0
    assert all(np.isnan(digits) for digits in npattn.oracle.load("none.npz").digits.values())
    assert command("golden", "pam", "channels=3", "--height=12", "--certify=sample", "-o", "some.npz")[0] == 0
    assert not all(np.isnan(digits) for digits in npattn.oracle.load("some.npz").digits.values())
    assert_one_complaint(command("golden", "eca", "--certify", "some"), "--certify", "invalid choice: 'some'")


def test_values_and_steps_are_those_asked_for(command, folder):
    small = "golden", "eca", "channels=3", *SMALL
    assert command(*small, "--values", "ties", "--steps", "-o", "steps.npz")[0] == 0
    assert command(*small, "-o", "plain.npz")[0] == 0
    cases = [npattn.oracle.load(name) for name in ("steps.npz", "plain.npz")]
    assert [case.values for case in cases] == ["ties", "generic"]
    with np.load("steps.npz") as file, np.load("plain.npz") as plain:
        more = {name.partition("/")[0] for name in set(file.files) - set(plain.files)}
    assert any(group.startswith("steps") for group in more), more
