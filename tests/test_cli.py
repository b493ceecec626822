import errno
import io
import os
import re
import shlex
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npattn
from npattn import CATALOGUE, cli
from npattn.data import photo_features
from npattn.module import as_tuple
from npattn.parameters import zeros
from tests.oracle.made_up import made_up
from tests.strategies import SMALL_MODULES

COMMAND = [sys.executable, "-c", "import sys; from npattn.cli import main; sys.exit(main())"]
ROW = re.compile(
    r"(?P<key>\S+) +(?P<input>[\dx]+) +(?P<params>[\d,]+) +(?P<forward>[\d.e+-]+ m?s) +(?P<backward>[\d.e+-]+ m?s) "
    r"+(?P<error>\S+)  (?P<verdict>ok|WRONG)"
)
GRADIENTS = [
    (key, name)
    for key, system in list(CATALOGUE.items())[:2]
    for name in (*system.example().input_shapes(1, 1, 1), *system.example().parameter_shapes())
]
posix = pytest.mark.skipif(os.name != "posix", reason="a shell's redirections")


@pytest.fixture
def command(capsys):
    """Run the command: exit status, what it wrote to stdout, what it wrote to stderr."""

    def run(*arguments):
        try:
            status = cli.main(arguments)
        except SystemExit as leaving:
            status = leaving.code
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def assert_one_complaint(result, *words):
    status, out, err = result
    assert status == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert err.startswith("npattn")
    for word in words:
        assert word in err


def spoil(monkeypatch, key, name, factor):
    """Multiply one gradient of a system by a factor that should be 1."""

    class Spoiled(CATALOGUE[key]):
        def forward(self, params, *inputs):
            run = super().forward(params, *inputs)

            def backward(dy):
                dx, grads = run.backward(dy)
                gradients = dict(zip(self.input_shapes(1, 1, 1), as_tuple(dx), strict=True)) | grads
                gradients[name] = gradients[name] * factor
                dxs = tuple(gradients.pop(x) for x in self.input_shapes(1, 1, 1))
                return dxs if isinstance(dx, tuple) else dxs[0], gradients

            return replace(run, backward=backward)

    monkeypatch.setitem(CATALOGUE, key, Spoiled)


def with_example(module):
    """Derive from a module's system one of which it is the example."""
    return type("Example", (type(module),), {"example": classmethod(lambda _: module)})


def rows(out):
    """Parse what check prints between the heading and the verdict."""
    return [match.groupdict() for match in map(ROW.fullmatch, out.splitlines()) if match]


def test_list_has_a_line_for_each_system_in_reading_order(command):
    status, out, err = command("list")
    assert (status, err) == (0, "")
    heading, *lines = out.splitlines()
    assert re.split(r"  +", heading) == ["key", "system", "paper", "params"]
    assert len(lines) == len(CATALOGUE)
    for line, (key, system) in zip(lines, CATALOGUE.items(), strict=True):
        module = system.example()
        arrays = [array for name, array in module.init().items() if name in module.parameter_shapes()]
        paper = f"{system.paper.authors.partition(',')[0]} et al. {system.paper.year}"
        assert re.split(r"  +", line) == [key, system.__name__, paper, f"{sum(array.size for array in arrays):,}"]


def test_list_fits_80_columns_and_ends_no_line_with_a_space(command):
    for line in command("list")[1].splitlines():
        assert len(line) <= 80
        assert line == line.rstrip()


def test_check_of_all_finds_every_gradient_right(command, monkeypatch):
    monkeypatch.setattr(cli, "CROP", (2, 2))  # for speed
    for key, module in SMALL_MODULES.items():
        monkeypatch.setitem(CATALOGUE, key, with_example(module))
    status, out, err = command("check")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert [row["key"] for row in rows(out)] == list(CATALOGUE)
    assert len(lines) == len(CATALOGUE) + 2 + sum(
        system.example().estimator is not None for system in CATALOGUE.values()
    )
    assert lines[0].split() == ["system", "input", "params", "forward", "backward", "error"]
    assert re.fullmatch("every gradient agrees with the complex step to 1e-12(, or to float64's rounding)?", lines[-1])
    assert max(map(len, lines)) <= 80, out
    for row in rows(out):
        module = CATALOGUE[row["key"]].example()
        assert row["verdict"] == "ok"
        assert float(row["error"]) < 1e-12
        positions = cli.PAIRED if row["key"] in cli.PAIRING else cli.DEFAULT
        assert row["input"] == "{}x{}x{}".format(*next(iter(module.input_shapes(1, *positions).values()))[1:])
        at = next(i for i, line in enumerate(lines) if line.split()[0] == row["key"])
        assert ("estimator differentiates" in lines[at + 1]) == (module.estimator is not None)
        assert int(row["params"].replace(",", "")) == sum(map(np.prod, module.parameter_shapes().values()))


def test_check_takes_the_order_asked_for_and_each_system_once(command):
    status, out, _ = command("check", "se", "eca", "se", "--size", "2x3")
    assert status == 0
    assert [row["key"] for row in rows(out)] == ["se", "eca"]
    assert [row["key"] for row in rows(command("check", "eca", "se", "eca", "--size", "2x3")[1])] == ["eca", "se"]


@pytest.mark.parametrize("size", ["1x1", "1x7", "60x3"])
def test_check_takes_maps_of_any_size(command, monkeypatch, size):
    keys = list(CATALOGUE) if size == "1x1" else ["se", "eca"]
    gradcheck = cli.gradcheck  # on the crop, which is of another size, in a few directions as well
    monkeypatch.setattr(
        cli, "gradcheck", lambda *case, method, **options: gradcheck(*case, method="adjoint", **options)
    )
    status, out, err = command("check", *keys, "--size", size)
    assert (status, err) == (0, "")
    assert [row["key"] for row in rows(out)] == keys
    assert all(row["input"].endswith(f"x{size}") for row in rows(out))


@pytest.mark.parametrize("factor", [1 + 1e-9, np.nan])
@pytest.mark.parametrize(("key", "name"), GRADIENTS)
def test_check_fails_and_names_the_one_wrong_gradient(command, monkeypatch, key, name, factor):
    spoil(monkeypatch, key, name, factor)
    status, out, err = command("check", key, "--size", "3x5")
    assert (status, err) == (1, "")
    (row,) = rows(out)
    assert row["verdict"] == "WRONG"
    assert float(row["error"]) == pytest.approx(abs(factor - 1), rel=0.1, nan_ok=True)
    named = [line.split()[0] for line in out.splitlines() if line.startswith("  ") and line.endswith("WRONG")]
    assert named == [name, name]  # by the Jacobian and by the adjoint identity
    assert out.splitlines()[-1] == "1 of 1 systems with a wrong gradient"


def test_check_goes_on_after_a_wrong_gradient_and_fails_in_the_end(command, monkeypatch):
    spoil(monkeypatch, "se", "x", -1)
    status, out, _ = command("check", "se", "eca", "--size", "3x5")
    assert status == 1
    assert {row["key"]: row["verdict"] for row in rows(out)} == {"se": "WRONG", "eca": "ok"}
    assert out.splitlines()[-1] == "1 of 2 systems with a wrong gradient"


def test_check_sees_a_mistake_in_units_that_are_off_at_the_seed(command, monkeypatch):
    seed = next(seed for seed in range(100) if off_on_the_photograph(seed))
    assert command("check", "se", "--size", "3x5", "--seed", str(seed))[0] == 0
    spoil(monkeypatch, "se", "fc1.weight", 1 + 1e-9)
    status, out, _ = command("check", "se", "--size", "3x5", "--seed", str(seed))
    assert status == 1
    assert re.search(r"fc1.weight +1.0e-09  WRONG", out)
    assert out.splitlines()[-1] == "1 of 1 systems with a wrong gradient"


def off_on_the_photograph(seed):
    """Whether all hidden units of squeeze-and-excitation are off, on the crop and on the map of 3x5."""
    module, seen = CATALOGUE["se"].example(), []
    for size in (cli.CROP, (3, 5)):
        params, inputs = cli.photo_values(module, size, seed)
        run = module(params, inputs["x"])
        seen.append(run.backward(run.output)[1]["fc1.weight"].any())
    return not any(seen)


def test_check_fails_where_a_gradient_is_nowhere_seen_but_as_zeros(command, monkeypatch):
    class Idle(CATALOGUE["eca"]):
        def parameters(self):
            return super().parameters() | {"idle": zeros(2)}

        def forward(self, params, x):
            run = super().forward(params, x)

            def backward(dy):
                dx, grads = run.backward(dy)
                return dx, grads | {"idle": 0 * params["idle"]}

            return replace(run, backward=backward)

    monkeypatch.setitem(CATALOGUE, "eca", Idle)
    status, out, _ = command("check", "eca", "--size", "3x5")
    assert status == 1
    assert [row["verdict"] for row in rows(out)] == ["WRONG"]
    assert out.count("idle         exactly 0: NOT TESTED") == 2
    assert out.splitlines()[-1] == "1 of 1 systems with a gradient that is wrong or untested, or a fault"


def test_check_fails_and_names_a_fault(command, monkeypatch):
    class Overwriting(CATALOGUE["eca"]):
        def forward(self, params, x):
            run = super().forward(params, x)

            def backward(dy):
                found = run.backward(dy.copy())
                dy[...] = 0
                return found

            return replace(run, backward=backward)

    monkeypatch.setitem(CATALOGUE, "eca", Overwriting)
    status, out, _ = command("check", "eca", "--size", "3x5")
    assert status == 1
    assert out.count("FAULT: backward writes to dy") == 2


@pytest.mark.parametrize(("size", "seed"), [((5, 6), 0), ((70, 90), 7), ((1, 100), 999999999)])
def test_check_looks_at_the_photograph_with_parameters_of_the_seed(command, monkeypatch, size, seed):
    checked = {}

    def record(module, params, inputs, *, method, **options):
        checked[method] = params, inputs["x"], options
        return gradcheck(module, params, inputs, method=method, **options)

    gradcheck = cli.gradcheck
    monkeypatch.setattr(cli, "gradcheck", record)
    assert command("check", "eca", "--size", "{}x{}".format(*size), "--seed", str(seed))[0] == 0

    def middle(height, width):
        x = photo_features(32, max(40, height), max(60, width))
        top, left = (x.shape[2] - height) // 2, (x.shape[3] - width) // 2
        return x[:, :, top : top + height, left : left + width]

    assert checked.keys() == {"jacobian", "adjoint"}
    np.testing.assert_array_equal(checked["jacobian"][1], middle(3, 4))
    np.testing.assert_array_equal(checked["adjoint"][1], middle(*size))
    assert checked["adjoint"][2] == {"seed": seed, "allow_zero": True}
    for params, *_ in checked.values():
        expected = CATALOGUE["eca"].example().init(seed, generic=True)
        np.testing.assert_equal(params, expected)


def test_crop_shows_a_part_of_the_photograph_that_is_not_flat():
    x = next(iter(cli.photo_values(CATALOGUE["se"].example(), cli.CROP, 0)[1].values()))
    assert x.shape[2:] == (3, 4)
    assert (np.ptp(x, axis=(0, 2, 3)) > 0.01).all()


def test_progress_is_shown_on_a_terminal_and_wiped(command, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    status, out, err = command("check", "se", "eca", "--size", "2x2")
    assert status == 0
    assert len(out.splitlines()) == 4
    assert "checking" not in out
    assert "\x1b" not in out
    steps = ["checking se (1 of 2)", "checking eca (2 of 2)"]
    assert err == "".join(f"\r\x1b[K{step}\r\x1b[K" for step in steps)


@given(st.floats(1e-5, 900))
def test_durations_keep_three_digits_and_fit_their_column(seconds):
    text = cli.duration(seconds)
    number, unit = text.split()
    assert len(text) <= 9
    assert "e" not in number
    assert float(number) * {"s": 1, "ms": 1e-3}[unit] == pytest.approx(seconds, rel=5.1e-3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["required: COMMAND", "see npattn --help"]),
        (["lits"], ["invalid choice: 'lits'", "'list'", "'check'", "'show'"]),
        (["list", "se"], ["unrecognized arguments: se"]),
        (["list", "one\ntwo"], ["unrecognized arguments: one two"]),
        (["--colour", "list"], ["--colour"]),
        (["check", "scse"], ["npattn check: unknown system 'scse'", "did you mean 'se'?", "npattn list"]),
        (["check", "se", "ecaa"], ["unknown system 'ecaa'", "did you mean 'eca'?"]),
        (["check", "zzz"], ["unknown system 'zzz'; npattn list names them all"]),
        (["check", "SE\n"], [r"unknown system 'SE\n'"]),
        (["check", ""], ["unknown system ''"]),
        (["show"], ["npattn show: ", "required: KEY"]),
        (["show", "se", "eca"], ["unrecognized arguments: eca"]),
        (["show", "ec"], ["npattn show: unknown system 'ec'", "did you mean 'eca'?"]),
        (["golden"], ["npattn golden: ", "required: KEY"]),
        (["golden", "ec"], ["npattn golden: unknown system 'ec'", "did you mean 'eca'?"]),
        (["golden", "eca", "--seed", "1", "channels=3", "--colour"], ["unrecognized arguments: --colour"]),
        (["verify", "a.npz"], ["npattn verify: ", "required: RESULTS"]),
        (["verify", "a.npz", "b.npz", "c.npz"], ["unrecognized arguments: c.npz"]),
    ],
)
def test_unknown_words_are_refused_in_one_line(command, arguments, words):
    assert_one_complaint(command(*arguments), *words)


@pytest.mark.parametrize(
    "text",
    [
        "0x4",
        "4x0",
        "4",
        "4x",
        "x4",
        "",
        "-1x3",
        "2000x2",
        "2x1025",
        "4×5",
        "axb",
        "4x5x6",
        " 4x5",
        "4x5\n",
        "4X5",
        "1e1x2",
    ],
)
def test_bad_size_is_refused_with_what_was_given(command, text):
    assert_one_complaint(
        command("check", "eca", f"--size={text}"),
        "npattn check: argument --size: ",
        f"{text!r} is no size",
        "expected HxW, each from 1 to 1024, such as 40x60",
    )


@pytest.mark.parametrize("text", ["-1", "1.5", "x", "", "1e3", "1000000000", "0x10", "1_000", "5\n"])
@pytest.mark.parametrize("name", ["check", "show", "golden"])
def test_bad_seed_is_refused_with_what_was_given(command, name, text):
    assert_one_complaint(
        command(name, "eca", f"--seed={text}"),
        f"npattn {name}: argument --seed: ",
        f"{text!r} is no seed",
        "expected a whole number from 0 to 999999999",
    )


@pytest.mark.parametrize(
    "text", ["75", "75,", ",3", "", "200,0", "0,300", "-1,3", "1.5,2", "7x5", "1,2,3", " 1,2", "1,2\n"]
)
def test_bad_pixel_is_refused_with_what_was_given(command, folder, text):
    assert_one_complaint(
        command("show", "pam", f"--at={text}"),
        "npattn show: argument --at: ",
        f"{text!r} is no pixel",
        "expected ROW,COLUMN from 0,0 to 199,299, such as 75,115",
    )
    assert list(folder.iterdir()) == []


def test_a_pixel_is_refused_where_there_is_no_attention_to_draw_from_it(command, folder):
    assert_one_complaint(
        command("show", "se", "--at", "75,115"),
        "npattn show: --at: se has no attention from one pixel to the others; expected one of pam",
    )
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", ["se.gif", "se", ".png", "", "se.png.txt", "folder/", "."])
def test_show_refuses_unknown_kinds_of_picture(command, folder, name):
    pytest.importorskip("matplotlib")
    assert_one_complaint(command("show", "se", "-o", name), f"npattn show: {name!r}", ".png, .pdf, .svg")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", [None, "other.pdf"])
def test_show_leaves_an_existing_file_untouched(command, folder, name):
    pytest.importorskip("matplotlib")
    path = folder / (name or "se.png")
    path.write_bytes(b"precious")
    result = command("show", "se", *(["-o", name] if name else []))
    assert_one_complaint(result, f"npattn show: {path.name} exists already", "--force")
    assert path.read_bytes() == b"precious"
    assert list(folder.iterdir()) == [path]


def test_show_refuses_a_missing_folder(command, folder):
    pytest.importorskip("matplotlib")
    assert_one_complaint(command("show", "se", "-o", "missing/se.png"), "missing/se.png", "there is no folder missing")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_show_refuses_to_replace_a_folder(command, folder, force):
    pytest.importorskip("matplotlib")
    (folder / "se.png").mkdir()
    assert_one_complaint(command("show", "se", *force), "npattn show: se.png is a folder")
    assert [path.name for path in folder.iterdir()] == ["se.png"]


def test_show_on_a_full_disk_keeps_what_was_there(command, folder, monkeypatch):
    pytest.importorskip("matplotlib")
    from npattn import picture

    class Figure:
        def savefig(self, path):
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(picture, "draw", lambda module, seed, at: Figure())
    (folder / "se.png").write_bytes(b"old")
    result = command("show", "se", "--force")
    assert_one_complaint(result, f"npattn show: {os.strerror(errno.ENOSPC)}\n")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"se.png": b"old"}


def test_show_without_matplotlib_says_what_to_install(command, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "npattn.picture", None)
    assert_one_complaint(command("show", "se"), "matplotlib can't be imported", "pip install 'npattn[plot]'")
    assert list(folder.iterdir()) == []


SMALL = "--height=2", "--width=3"


@pytest.fixture
def small(command, folder):
    """A golden file, and the results it expects."""
    assert command("golden", "eca", "channels=3", *SMALL)[0] == 0
    case = npattn.oracle.load("eca-float16.npz")
    return case, {name: y.copy() for name, y in case.expected.items()}


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


def test_golden_prints_a_row_for_each_result(command, folder):
    status, out, err = command("golden", "pam", "channels=8", *SMALL)
    assert (status, err) == (0, "")
    case = npattn.oracle.load("pam-float16.npz")
    lines = out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.split() == ["result", "shape", "budget", "digits", "judged"])
    for line, (name, expected) in zip(lines[start + 1 :], case.expected.items(), strict=False):
        found, shape, budget, digits, judged = line.split()
        assert (found, shape) == (name, "x".join(map(str, expected.shape)))
        size = np.sqrt(np.mean(expected**2))
        assert float(budget) == pytest.approx(np.median(case.budget[name]) / size, rel=0.1)
        assert digits == ("?" if np.isnan(case.digits[name]) else f"{case.digits[name]:.1f}")
        assert judged == "100%"
    assert "A budget far above 1 is that of a result which is 0, but for rounding." in lines  # the key's bias


def test_golden_tells_what_the_format_cannot_hold(capsys):
    case = npattn.oracle.golden(npattn.EfficientChannelAttention(3, kernel_size=1), height=2, width=3)
    case.budget["output"][0, 0] = np.inf
    case.budget["x.grad"][...] = np.inf
    case.expected["conv.weight.grad"][...] = 0
    case.digits["output"] = np.nan
    cli.print_results(case)
    out = capsys.readouterr().out
    assert re.search(r"^output +1x3x2x3 +[\d.e-]+ +\? +67%$", out, re.MULTILINE)
    assert re.search(r"^x.grad +1x3x2x3 +- +[\d.]+ +0%$", out, re.MULTILINE)
    assert re.search(r"^conv.weight.grad +1x1x1 +inf +[\d.]+ +100%$", out, re.MULTILINE)


@pytest.mark.parametrize("key", CATALOGUE)
def test_golden_and_verify_fit_80_columns(command, folder, monkeypatch, key):
    case = made_up(CATALOGUE[key].example())
    monkeypatch.setattr(cli, "golden", lambda *_, **__: case)
    status, out, err = command("golden", key)
    assert (status, err) == (0, "")
    judged = {name: np.where(np.isfinite(budget), budget, 1) for name, budget in case.budget.items()}
    wrong = {name: y + 40 * judged[name] for name, y in case.expected.items()}
    wrong["output" if "output" in wrong else "output.0"][...] = np.nan
    np.savez("wrong.npz", **wrong)
    status, told, err = command("verify", f"{key}-float16.npz", "wrong.npz")
    assert (status, err) == (1, "")
    for line in (out + told).splitlines():
        assert len(line) <= 80, line
        assert line == line.rstrip()


@pytest.mark.parametrize(
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
        (["mhsa", "heads=3", "channels=9"], npattn.MultiHeadSelfAttention(9, 3)),
        (["residual", "inner.channels=4", "inner=cam"], npattn.Residual(npattn.ChannelAttention(4))),
        (["residual", "inner.reduction=2"], npattn.Residual(npattn.SqueezeExcitation(32, 2))),
    ],
)
def test_golden_reads_hyperparameters_in_any_order(command, folder, fields, module):
    assert command("golden", *fields, *SMALL, "-o", "case.npz")[0] == 0
    assert npattn.oracle.load("case.npz").module == module


def test_golden_leaves_an_existing_file_untouched_and_computes_nothing(command, folder, monkeypatch):
    monkeypatch.setattr(cli, "golden", lambda *_, **__: pytest.fail("computed in vain"))
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

    monkeypatch.setattr(cli, "golden", interrupt)
    assert command("golden", "eca") == (130, "", "\n")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "names", [["output"], ["x.grad", "conv.weight.grad"], ["output", "x.grad", "conv.weight.grad"]]
)
def test_verify_passes_right_results_and_names_those_not_given(command, small, names):
    case, right = small
    np.savez_compressed("results.npz", **{name: right[name].astype(np.float16) for name in names})
    status, out, err = command("verify", "eca-float16.npz", "results.npz")
    assert (status, err) == (0, "")
    report = case.compare({name: right[name].astype(np.float16) for name in names})
    assert out.startswith(f"{report}\n")
    missing = [name for name in right if name not in names]
    assert out.removeprefix(f"{report}\n") == (f"not given: {', '.join(missing)}\n" if missing else "")


@pytest.mark.parametrize("spoiled", ["output", "x.grad", "conv.weight.grad"])
@pytest.mark.parametrize("fault", [lambda y: y * 1.5, lambda y: y * np.nan, lambda y: y[None], lambda y: y * 1j])
def test_verify_fails_and_names_the_wrong_result(command, small, spoiled, fault):
    _, results = small
    np.savez("results.npz", **results | {spoiled: fault(results[spoiled])})
    status, out, err = command("verify", "eca-float16.npz", "results.npz")
    assert (status, err) == (1, "")
    assert "1 of 3 results WRONG" in out
    assert [line.split()[0] for line in out.splitlines() if line.endswith("WRONG")] == [spoiled]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing.npz", "right.npz"], ["missing.npz: No such file"]),
        (["eca-float16.npz", "missing.npz"], ["missing.npz: No such file"]),
        (["right.npz", "eca-float16.npz"], ["right.npz: holds no header.json; expected a golden file"]),
        (["eca-float16.npz", "eca-float16.npz"], ["holds a header.json", "expected the results of a kernel"]),
        (["eca-float16.npz", "typo.npz"], ["typo.npz: holds 'outptu.npy'", "did you mean 'output.npy'?"]),
        (["eca-float16.npz", "single.npy"], ["single.npy: a single array (.npy); expected an .npz file of results"]),
        (["eca-float16.npz", "bfloat16.npz"], ["dtype '|V2'", "write float32"]),
        (["eca-float16.npz", "pickled.npz"], ["holds pickled objects"]),
        (["eca-float16.npz", "none.npz"], ["holds no results; expected some of output, x.grad, conv.weight.grad"]),
        (["cut.npz", "right.npz"], ["cut.npz: cut off or altered"]),
        (["eca-float16.npz", "cut.npz"], ["cut.npz: cut off or altered"]),
        (["text.npz", "right.npz"], ["text.npz: no .npz archive"]),
        (["eca-float16.npz", "."], [".: "]),
    ],
)
def test_verify_refuses_other_files_in_one_line(command, small, folder, arguments, words):
    _, right = small
    np.savez("right.npz", **right)
    np.savez("typo.npz", outptu=right["output"])
    np.save("single.npy", right["output"])
    np.savez("bfloat16.npz", output=right["output"].astype(np.float16).view("V2"))
    np.savez("pickled.npz", output=right["output"].astype(object))
    np.savez("none.npz")
    (folder / "cut.npz").write_bytes((folder / "eca-float16.npz").read_bytes()[:-30])
    (folder / "text.npz").write_text("no archive")
    assert_one_complaint(command("verify", *arguments), "npattn verify: ", *words)


def test_list_and_check_do_without_matplotlib():
    code = "import sys; sys.modules['matplotlib'] = None; from npattn.cli import main; "
    code += "sys.exit(main(['list']) or main(['check', 'eca', '--size=2x2']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["", "list", "check", "show", "golden", "verify"])
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
        assert {*getattr(arguments, "keys", []), getattr(arguments, "key", "se")} <= CATALOGUE.keys()


def test_version_is_that_of_the_installed_package(command):
    assert command("--version") == (0, f"npattn {metadata.version('npattn')}\n", "")


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

    monkeypatch.setattr(cli, "run_list", interrupt)
    try:
        assert command("list") == (130, "", "\n")
    except KeyboardInterrupt:  # which would end the whole test run
        pytest.fail("the caller is interrupted too")


def test_mistakes_in_the_code_are_not_passed_off_as_bad_input(monkeypatch):
    def fail(_):
        raise ValueError("a bug")

    monkeypatch.setattr(cli, "run_list", fail)
    with pytest.raises(ValueError, match="a bug"):
        cli.main(["list"])


def test_author_whom_the_terminal_cannot_spell_is_escaped(monkeypatch):
    class Foreign(CATALOGUE["se"]):
        paper = replace(CATALOGUE["se"].paper, authors="Çelik, Hu")

    monkeypatch.setitem(CATALOGUE, "se", Foreign)
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    assert cli.main(["list"]) == 0
    assert rb"\xc7elik et al." in written.getvalue()


@pytest.mark.parametrize(
    ("arguments", "unbuffered"),
    [(["list"], ""), (["list"], "1"), (["--help"], "")],
)
def test_reader_that_has_seen_enough_is_no_error(arguments, unbuffered):
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
    assert (done.returncode, done.stderr) == (0, b"")


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


full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux's device that is always full")


@full
@pytest.mark.parametrize(("arguments", "unbuffered"), [(["list"], ""), (["--version"], ""), (["list", "--help"], "1")])
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
        ("2>&-", ["lits"]),
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


def test_a_closed_stream_in_place_of_stderr_is_none(command, monkeypatch):
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    assert cli.main(["check", "eca", "--size=2x2"]) == 0
    assert cli.main(["check", "ecaa"]) == 2


def test_verdict_is_kept_though_its_reader_has_seen_enough(small):
    _, results = small
    np.savez("wrong.npz", output=2 * results["output"])
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*COMMAND, "verify", "eca-float16.npz", "wrong.npz"],
        stdout=writer,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


SLOW = {
    "while it computes": "cli.golden = wait",
    "while it computes in threads": """
from concurrent.futures import ThreadPoolExecutor
def golden(*_, **__):
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(wait, range(2)))
cli.golden = golden""",
    "while it writes": """
import zipfile
writestr, written = zipfile.ZipFile.writestr, []
def write(*arguments, **options):
    written.append(writestr(*arguments, **options))
    if len(written) == 3: wait()
zipfile.ZipFile.writestr = write""",
}


def start_waiting(how, *arguments, ignored=""):
    """Start the command, and return it when it has come to the place where it waits."""
    code = f"""
import os, signal, sys, time
from npattn import cli
for name in ("SIGTERM", "SIGHUP"):  # whatever the tests' own parent ignores
    signal.signal(getattr(signal, name), signal.SIG_IGN if name == "{ignored}" else signal.SIG_DFL)
def wait(*_, **__):
    os.write(1, b"waiting")
    time.sleep(30)
{SLOW[how]}
sys.exit(cli.main())
"""
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.read(7) == b"waiting"
    return process


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
    process = start_waiting(how, *["golden", "eca", *SMALL, "-o", "case.npz"], *(["--force"] if force else []))
    assert len(list(folder.iterdir())) == 1 + force  # the temporary file
    process.send_signal(getattr(signal, name))
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (status, b"")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == ({"case.npz": b"old"} if force else {})


@posix
def test_a_signal_that_is_ignored_stays_so(folder):
    process = start_waiting("while it computes", "golden", "eca", *SMALL, ignored="SIGHUP")
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
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
    monkeypatch.setattr(cli, "golden", lambda *_, **__: pytest.fail("computed in vain"))
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


@pytest.mark.parametrize("name", ["a\0b.npz", "", pytest.param("pipe.npz", marks=posix)])
def test_verify_refuses_what_it_cannot_read_in_one_line(command, small, name):
    if name == "pipe.npz":
        os.mkfifo(name)
    for arguments in ([name, "eca-float16.npz"], ["eca-float16.npz", name]):
        assert_one_complaint(command("verify", *arguments), "npattn verify: ")


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
    assert_one_complaint(result, f"npattn golden: {os.strerror(errno.EFBIG)}")
    assert list(folder.iterdir()) == []
