import re

import numpy as np
import pytest

import npattn
from npattn import CATALOGUE
from npattn.cli import golden
from npattn.cli.results import print_given, print_results, symbolic_shapes
from npattn.oracle.systems import SYSTEMS
from tests.cli.running import SMALL
from tests.naming import for_each
from tests.oracle.made_up import made_up
from tests.strategies import small_example


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
    told = lines[lines.index("judged: share of the elements that the format can hold") + 1 : -3]
    assert told == ["Zeros would pass too, as rounding may err by as much as the result is:", "  key_conv.bias.grad"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["ops.softmax", *SMALL],
            [
                "inputs: x (B, 16, HW)",
                "upstream: output (B, 16, HW)",
                "  B = 1 (--batch), H = 2 (--height), W = 3 (--width)",
                "choices: axis=positions|channels",
            ],
        ),
        (
            ["sdpa", "mask=True", "bias=True", "--batch=2", "--height=5"],
            [
                "inputs: query (B, 4, H, 8), key (B, 2, W, 8), value (B, 2, W, 8),",
                "  bias (B, 1, H, W), mask (B, 1, H, W)",
                "params: sink (4)",
                "upstream: output (B, 4, H, 8)",
                "  B = 2 (--batch), H = 5 queries (--height), W = 16 keys (--width)",
                "choices: causal=top-left|bottom-right|None",
            ],
        ),
        (
            ["danet", "classes=3", *SMALL],
            [
                "inputs: x (B, 16, H, W)",
                "params: conv5a.0.weight (4, 16, 3, 3), conv5a.1.weight (4), conv5a.1.bias (4),",
                "  conv5c.0.weight (4, 16, 3, 3), conv5c.1.weight (4), conv5c.1.bias (4), and 28",
                "  more",
                "upstream: output.0 (B, 3, H, W), output.1 (B, 3, H, W), output.2 (B, 3, H, W)",
                "  B = 1 (--batch), H = 2 (--height), W = 3 (--width)",
                "choices: variant=paper|code",
            ],
        ),
        (
            ["ops.conv1d"],
            ["inputs: x (B, 16)", "params: weight (1, 1, 3)", "upstream: output (B, 16)", "  B = 1 (--batch)"],
        ),
        (
            ["halo", "--height=6", "--width=7"],  # which is made of whole blocks
            ["inputs: x (B, 16, H, 8)", "upstream: output (B, 16, H, 8)", "  B = 1 (--batch), H = 6 (--height)"],
        ),
    ],
)
def test_golden_says_what_the_kernel_is_given_and_which_sizes_are_in_it(command, folder, arguments, told):
    status, out, err = command("golden", *arguments, "--certify=none", "-o", "case.npz")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("inputs: "))
    end = next(i for i, line in enumerate(lines) if line.startswith("result "))
    assert [line for line in lines[start:end] if line in told] == told
    assert lines[-2:] == [
        "a kernel's results, named as above or some of them, are judged by",
        "  npattn verify case.npz results.npz",
    ]


@for_each("key", SYSTEMS)
def test_the_sizes_in_shapes_are_those_asked_for(capsys, key):
    module, sizes = SYSTEMS[key].example(), (2, 6, 10)
    named = {"B": 2, "H": 6, "W": 10, "HW": 60, "BHW": 120, "2H-1": 11, "2W-1": 19}
    for shapes in (module.input_shapes, module.output_shapes):
        for name, text in symbolic_shapes(shapes, sizes).items():
            lengths = filter(None, text.strip("()").split(", "))
            assert tuple(named.get(one) or int(one) for one in lengths) == shapes(*sizes)[name]
    print_given(module, *sizes)
    assert fits_80_columns(capsys.readouterr().out)


def test_golden_tells_what_the_format_cannot_hold(capsys):
    case = npattn.oracle.golden(npattn.EfficientChannelAttention(3, kernel_size=1), height=2, width=3)
    case.budget["output"][0, 0] = np.inf
    case.budget["x.grad"][...] = np.inf
    case.expected["conv.weight.grad"][...] = 0
    case.digits["output"] = np.nan
    print_results(case)
    out = capsys.readouterr().out
    assert re.search(r"^output +1x3x2x3 +[\d.e-]+ +\? +67%$", out, re.MULTILINE)
    assert re.search(r"^x.grad +1x3x2x3 +- +[\d.]+ +0%$", out, re.MULTILINE)
    assert re.search(r"^conv.weight.grad +1x1x1 +inf +[\d.]+ +100%$", out, re.MULTILINE)


def fits_80_columns(text):
    return all(len(line) <= 80 and line == line.rstrip() for line in text.splitlines())


@for_each("key", CATALOGUE)
def test_golden_fits_80_columns(command, folder, monkeypatch, key):
    case = made_up(small_example(CATALOGUE[key]))
    monkeypatch.setattr(golden, "golden", lambda *_, **__: case)
    status, out, err = command("golden", key)
    assert (status, err) == (0, "")
    assert fits_80_columns(out), out


@for_each("key", ["cbam", "danet", "lambda", "multi-scale"])  # long names and long words of what results look like
def test_verify_fits_80_columns(command, folder, key):
    case = made_up(small_example(CATALOGUE[key]))
    case.save(f"{key}.npz")
    judged = {name: np.where(np.isfinite(budget), budget, 1) for name, budget in case.budget.items()}
    wrong = {name: y + 40 * judged[name] for name, y in case.expected.items()}
    wrong["output" if "output" in wrong else "output.0"][...] = np.nan
    np.savez("wrong.npz", **wrong)
    status, told, err = command("verify", f"{key}.npz", "wrong.npz")
    assert (status, err) == (1, "")
    assert fits_80_columns(told), told


def test_an_infinite_result_takes_no_part_in_the_size_of_the_others(capsys):
    module = npattn.ScaledDotProductAttention(heads=1, head_dim=4, causal="bottom-right", logsumexp=True)
    case = npattn.oracle.golden(module, height=4, width=3, dtype="float16")
    assert case.expected["output.1"][0, 0, 0] == -np.inf
    print_results(case)
    (row,) = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("output.1")]
    assert 1e-5 < float(row[2]) < 1e-2
    assert row[-1] == "100%"
