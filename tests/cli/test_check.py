import re
import sys
from dataclasses import replace

import numpy as np
import pytest

from npattn import CATALOGUE, PositionAttention, Residual
from npattn.cli import check, gradients, photo, timing
from npattn.cli.photo import CROP_SIZE, checked_size, photo_values
from npattn.data import photo_features
from npattn.module import FAMILIES, as_tuple
from npattn.parameters import zeros
from tests.cli.running import assert_one_complaint, rows
from tests.strategies import SMALL_MODULES

GRADIENTS = [
    (key, name)
    for key, system in list(CATALOGUE.items())[:2]
    for name in (*system.example().input_shapes(1, 1, 1), *system.example().parameter_shapes())
]


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


@pytest.fixture(autouse=True)
def timed_once(monkeypatch):
    """Time a single pass: of how many the printed time is the median is not the matter here."""
    monkeypatch.setattr(timing, "NUM_TIMED_PASSES", 1)


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """Check many systems here, where tests have changed some."""
    monkeypatch.setattr(check, "count_jobs", lambda systems: 1)


@pytest.fixture
def quick(monkeypatch):
    """Shorten the work on all systems; what is cut off is more of the same."""
    monkeypatch.setattr(gradients, "CROP_SIZE", (2, 2))
    monkeypatch.setattr(photo, "CHECKED_SIZE", (20, 30))
    monkeypatch.setattr(photo, "PAIRED_SIZE", (10, 15))
    for key, module in SMALL_MODULES.items():
        monkeypatch.setitem(CATALOGUE, key, with_example(module))


@pytest.fixture
def in_few_directions(monkeypatch):
    """Check the crop, whose full Jacobian takes long, in a few directions as well."""
    gradcheck = gradients.gradcheck
    monkeypatch.setattr(
        gradients, "gradcheck", lambda *case, method, **rest: gradcheck(*case, method="adjoint", **rest)
    )


def test_check_of_all_finds_every_gradient_right(command, quick, in_few_directions):
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
        module = module.for_size(*checked_size(module))
        assert row["verdict"] == "ok"
        assert float(row["error"]) < 1e-12
        shape = next(iter(module.input_shapes(1, *checked_size(module)).values()))
        assert row["input"] == "{}x{}x{}".format(*shape[1:])
        at = next(i for i, line in enumerate(lines) if line.split()[0] == row["key"])
        assert ("estimator differentiates" in lines[at + 1]) == (module.estimator is not None)
        assert int(row["params"].replace(",", "")) == sum(map(np.prod, module.parameter_shapes().values()))


def test_check_takes_the_order_asked_for_and_each_system_once(command, in_few_directions):
    status, out, _ = command("check", "se", "eca", "se", "--size", "2x3")
    assert status == 0
    assert [row["key"] for row in rows(out)] == ["se", "eca"]
    assert [row["key"] for row in rows(command("check", "eca", "se", "eca", "--size", "2x3")[1])] == ["eca", "se"]


def test_several_processes_find_the_same(command):
    keys = "eca", "se", "sge"
    found, again = (command("check", *keys, "--size", "2x3", *jobs) for jobs in ((), ("--jobs", "2")))
    assert again[::2] == found[::2] == (0, "")
    for row, other in zip(rows(found[1]), rows(again[1]), strict=True):
        assert [row[name] for name in ("key", "input", "params", "error")] == [
            other[name] for name in ("key", "input", "params", "error")
        ]


def test_only_many_systems_are_checked_by_as_many_processes_as_there_are_cores(monkeypatch):
    monkeypatch.undo()
    for cores, most in ((1, 1), (2, 2), (100, check.MOST_JOBS)):
        monkeypatch.setattr(check, "count_cores", lambda cores=cores: cores)
        assert [check.count_jobs(systems) for systems in (1, check.MANY_SYSTEMS - 1)] == [1, 1]
        assert [check.count_jobs(systems) for systems in (check.MANY_SYSTEMS, len(CATALOGUE))] == [most, most]


def test_check_of_families_takes_their_systems_in_reading_order(command, quick, in_few_directions):
    status, out, _ = command("check", "--family", "other", "--family", "channel", "--size", "2x3")
    assert status == 0
    keys = [key for key, system in CATALOGUE.items() if system.family in ("channel", "other")]
    assert [row["key"] for row in rows(out)] == keys
    assert 2 < len(keys) < len(CATALOGUE)


def test_check_of_keys_and_of_a_family_at_once_is_refused(command):
    assert_one_complaint(
        command("check", "se", "--family", "channel"), "KEY", "--family", "both (se, --family channel)"
    )
    assert_one_complaint(command("check", "--family", "chanel"), "'chanel'", *map(repr, FAMILIES))


@pytest.mark.parametrize("size", ["1x1", "1x7", "60x3"])
def test_check_takes_maps_of_any_size(command, in_few_directions, size):
    keys = list(CATALOGUE) if size == "1x1" else ["se", "eca"]
    status, out, err = command("check", *keys, "--size", size)
    assert (status, err) == (0, "")
    assert [row["key"] for row in rows(out)] == keys
    # The first input of sdpa has queries and channels last, one key of one query; a map of halo has whole blocks.
    assert all(row["input"].endswith(f"x{size}") for row in rows(out) if row["key"] not in ("sdpa", "halo"))


def test_check_says_where_a_system_takes_a_larger_map_than_it_was_told(command, in_few_directions):
    _, out, _ = command("check", "halo", "eca", "--size", "3x4")
    assert out.splitlines()[2] == "  on 4x4 positions: it takes no map of 3x4"
    assert out.count("it takes no map") == 1
    assert "takes no map" not in command("check", "halo", "sdpa", "--size", "4x6")[1]


def test_systems_that_pair_positions_are_checked_on_smaller_maps_within_others_too(
    command, monkeypatch, in_few_directions
):
    monkeypatch.setitem(CATALOGUE, "residual", with_example(Residual(PositionAttention(2))))
    sizes = [row["input"] for row in rows(command("check", "residual", "eca")[1])]
    assert sizes == ["2x20x30", "32x40x60"]


@pytest.mark.parametrize("factor", [1 + 1e-9, np.nan])
@pytest.mark.parametrize(("key", "name"), GRADIENTS)
def test_check_fails_and_names_the_one_wrong_gradient(command, monkeypatch, key, name, factor):
    monkeypatch.setattr(gradients, "CROP_SIZE", (2, 2))
    spoil(monkeypatch, key, name, factor)
    status, out, err = command("check", key, "--size", "3x5")
    assert (status, err) == (1, "")
    (row,) = rows(out)
    assert row["verdict"] == "WRONG"
    assert float(row["error"]) == pytest.approx(abs(factor - 1), rel=0.1, nan_ok=True)
    named = [line.split()[0] for line in out.splitlines() if line.startswith("  ") and line.endswith("WRONG")]
    assert named == [name, name]  # by the Jacobian and by the adjoint identity
    assert out.splitlines()[-1] == "1 of 1 systems with a wrong gradient"


def test_check_goes_on_after_a_wrong_gradient_and_fails_in_the_end(command, monkeypatch, in_few_directions):
    spoil(monkeypatch, "se", "x", -1)
    status, out, _ = command("check", "se", "eca", "--size", "3x5")
    assert status == 1
    assert {row["key"]: row["verdict"] for row in rows(out)} == {"se": "WRONG", "eca": "ok"}
    assert out.splitlines()[-1] == "1 of 2 systems with a wrong gradient"


def test_check_warns_of_no_infinity_on_the_way(command, monkeypatch, in_few_directions):
    class Logarithmic(CATALOGUE["eca"]):
        def forward(self, params, x):
            assert np.isneginf(np.log(0 * x.real)).all()
            return super().forward(params, x)

    monkeypatch.setitem(CATALOGUE, "eca", Logarithmic)
    assert command("check", "eca", "--size", "3x5")[::2] == (0, "")


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
    for size in (CROP_SIZE, (3, 5)):
        params, inputs = photo_values(module, size, seed)
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

    gradcheck = gradients.gradcheck
    monkeypatch.setattr(gradients, "gradcheck", record)
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


def test_progress_is_shown_on_a_terminal_and_wiped(command, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    status, out, err = command("check", "se", "eca", "--size", "2x2")
    assert status == 0
    assert len(out.splitlines()) == 4
    assert "checking" not in out
    assert "\x1b" not in out
    steps = ["checking se (1 of 2)", "checking eca (2 of 2)"]
    assert err == "".join(f"\r\x1b[K{step}\r\x1b[K" for step in steps)


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
