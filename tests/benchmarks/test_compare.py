import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import npattn
from tests.benchmarks import bounds, compare, machine
from tests.benchmarks import work as work_module
from tests.naming import for_each

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from Linux's kernel")


@pytest.fixture
def tiny(monkeypatch):
    """Small maps, a small machine, and no processes of their own for memory."""
    monkeypatch.setattr(compare, "SHAPE", (2, 16, 6, 5))
    monkeypatch.setattr(compare, "SHAPES", {})
    monkeypatch.setattr(compare, "SCALING", [(1, 8, side, side) for side in (2, 3, 4)])
    monkeypatch.setattr(compare, "OPTIONS", compare.OPTIONS | {"window": 3, "stride": 2, "heads": 4})
    monkeypatch.setattr(compare, "peak_megabytes", lambda key, name, *_, **__: {"npattn": 7.0}.get(name, 14.0))
    monkeypatch.setattr(machine, "PRODUCT", (64, 64, 64))
    monkeypatch.setattr(machine, "SIZE", 100_001)
    monkeypatch.setattr(machine, "BLOCK_SIZE", 10_000)
    monkeypatch.setattr(machine, "REST", 0)


def without(*names):
    """Stand in for `find_spec` where some packages are not installed."""
    return lambda name, find=importlib.util.find_spec: None if name in names else find(name)


def cells(line):
    """Part a row of the table at its wide gaps."""
    return re.split(r"  +", line.strip())


@for_each(("key", "dtype"), [*((key, "float32") for key in npattn.CATALOGUE), ("se", "float64")])
def test_every_system_is_timed(key, dtype, tiny, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", without("torch"))
    compare.main([key, "--repeats", "1", "--dtype", dtype])
    first, headings, system, *rows, mean, machine_line = capsys.readouterr().out.splitlines()
    assert first.endswith(dtype)
    assert cells(headings) == ["time", "share of bound", "eager", "compiled", "fused", "peak MB", "eager"]
    assert system == f"{key} (2, 16, 6, 5)"
    assert [cells(row)[0] for row in rows] == ["forward", "backward", "both"]
    for row in rows:
        assert re.match(r"  \w+ +[\d.]+ ms +\d+ % (memory|products)", row)
    assert cells(rows[-1])[-1] == "7"
    assert mean == "geometric mean"
    assert re.fullmatch(r"the machine meanwhile: products \d+ Gflop/s, memory [\d.]+ GB/s", machine_line)


def test_beside_it_stand_the_ratios_to_pytorch(tiny, monkeypatch, capsys):
    pytest.importorskip("torch")
    monkeypatch.setattr(compare, "can_compile", lambda: True)
    monkeypatch.setitem(compare.IMPLEMENTATIONS, "compiled", compare.torch_passes)  # compiling takes long
    compare.main(["pam", "--repeats", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    *_, both, mean, _ = lines
    *ratios, peak, memory = cells(both)[3:]
    assert (peak, memory) == ("7", "0.50")
    assert cells(mean) == ["geometric mean", *ratios, "0.50"]
    assert len(ratios) == 3


def test_a_form_that_is_missing_leaves_its_cell_empty(tiny, monkeypatch, capsys):
    pytest.importorskip("torch")
    monkeypatch.setattr(compare, "can_compile", lambda: False)
    compare.main(["eca", "pam", "--repeats", "1"])
    lines = capsys.readouterr().out.splitlines()
    of_eca, of_pam = (cells(line)[3:] for line in lines if line.startswith("  both"))
    assert (len(of_eca), len(of_pam)) == (3, 4)  # pam has a fused form
    at = lines[2].index("fused") + len("fused")
    eca, pam = (line for line in lines if line.startswith("  both"))
    assert (eca[at - 4 : at].strip(), pam[at - 4 : at]) == ("", of_pam[1])


def test_what_pytorch_compiles_wrongly_is_not_run(tiny, monkeypatch, capsys):
    pytest.importorskip("torch")
    monkeypatch.setattr(compare, "can_compile", lambda: True)
    compiled = []

    def noted(key, **options):
        compiled.append(key)
        return compare.torch_passes(key, **options)

    monkeypatch.setitem(compare.IMPLEMENTATIONS, "compiled", noted)
    monkeypatch.setattr(compare, "MISCOMPILED", {"se"})
    compare.main(["se", "eca", "--repeats", "1"])
    of_se, of_eca = (cells(line)[3:] for line in capsys.readouterr().out.splitlines() if line.startswith("  both"))
    assert compiled == ["eca"]
    assert (len(of_se), len(of_eca)) == (3, 4)


def test_the_same_is_printed_as_the_table_of_the_readme(tiny, monkeypatch, capsys):
    pytest.importorskip("torch")
    monkeypatch.setattr(compare, "can_compile", lambda: False)
    compare.main(["eca", "pam", "--repeats", "1", "--markdown"])
    lines = capsys.readouterr().out.splitlines()
    empty, headings, rule, eca, pam, mean = lines[-6:]
    assert empty == ""
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert f"{headings}\n{rule}\n" in readme
    for row, line in zip((eca, pam), (line for line in lines if line.startswith("  both")), strict=True):
        key, shape, share, *ratios, memory = [cell.strip() for cell in row.strip("|").split("|")]
        assert f"{key} {shape}" in ("eca 2×16×6×5", "pam 2×16×6×5")
        _, _, *expected, _, expected_memory = cells(line)
        assert [share, *filter(None, ratios), memory] == [*expected, expected_memory]
    assert mean.startswith("| geometric mean |  |  | ")
    assert mean.endswith(" | 0.50 |")


def test_without_a_compiler_one_line_says_so(monkeypatch, capsys):
    torch = pytest.importorskip("torch")

    def compile_nothing(function):
        raise RuntimeError("no C++ compiler found\nand much more")

    monkeypatch.setattr(torch, "compile", compile_nothing)
    assert not compare.can_compile()
    out = capsys.readouterr().out
    assert out == "torch.compile does not work here: RuntimeError: no C++ compiler found\n"


def test_the_mean_is_geometric():
    assert compare.mean([0.5, 2, 8]) == "2.00"
    assert compare.mean([]) == ""


def test_the_share_is_of_the_larger_of_the_two_times(tiny, monkeypatch):
    """A machine of 1 Gflop/s and 1 GB/s, and a system that takes 10 s a pass."""
    monkeypatch.setattr(compare, "medians", lambda passes, _: {"npattn": [10, 10, 20]})
    stand_in = SimpleNamespace(rates=lambda _: (1e9, 1e9))
    for key, work, bound, shares in (
        ("pam", [(2e9, 1e9 / 4), (4e9, 1e9 / 4)], "products", [0.2, 0.4, 0.3]),
        ("pam", [(2e9, 3e9 / 4), (4e9, 5e9 / 4)], "memory", [0.3, 0.5, 0.4]),
        ("se", [(2e9, 1e9 / 4), (4e9, 2e9 / 4)], "memory", [0.1, 0.2, 0.15]),  # whose flops are no products
    ):
        monkeypatch.setattr(work_module, "count_work", lambda *_, work=work: list(work))
        rows, rates = compare.time_system(key, "float32", ["npattn"], stand_in, 1)
        assert rates == (1e9, 1e9)
        assert [row.bound for row in rows] == [bound] * 3
        assert [row.share for row in rows] == pytest.approx(shares)


def test_the_machine_multiplies_and_passes_over_all(tiny):
    found = machine.Machine("float64")
    found.multiply()
    found.pass_over_memory()
    assert (found.out == 64).all()
    assert (found.c == 2).all()
    assert found.flops == 2 * 64**3
    assert found.bytes == 3 * 100_001 * 8


def test_rates_are_work_over_the_median_of_its_times(tiny, monkeypatch):
    """The first time is left out; the others are 1, 9 and 2 s, of which the median is 2 s."""
    found, clock = machine.Machine("float32"), [0.0]

    def work(seconds):
        times = iter(seconds)
        return lambda: clock.append(clock[-1] + next(times))

    monkeypatch.setattr(machine.time, "perf_counter", lambda: clock[-1])
    monkeypatch.setattr(found, "multiply", work([50, 1, 9, 2]))
    monkeypatch.setattr(found, "pass_over_memory", work([50, 8, 4, 4]))
    assert found.rates(3) == (found.flops / 2, found.bytes / 4)


def test_every_pass_is_timed_after_one_of_its_own(monkeypatch):
    log = []
    passes = {name: (lambda name=name: log.append(name), lambda name=name: log.append(name.upper())) for name in "ab"}
    compare.medians(passes, 2)
    assert "".join(log) == 2 * "aAaAbBbB"


@for_each("key", npattn.CATALOGUE)
def test_work_of_a_batch_is_that_of_its_images(key):
    module, (batch, *image) = compare.make_module(key), compare.shape_of(key)
    one, many = (work_module.count_work(module, (n, *image)) for n in (1, batch))
    np.testing.assert_allclose(many, batch * np.array(one), rtol=1e-12)
    channels, height, width = image
    size = channels * (height + width) if key == "sdpa" else np.prod(image)  # queries and keys, and no map
    assert np.all(np.array(one)[:, 1] > size * 0.9)


@pytest.mark.parametrize("key", ["pam", "cam", "danet", "mhsa", "pcm", "multi-scale", "sk", "split", "bottleneck"])
def test_flops_forward_are_those_that_pytorch_counts(key, tiny, monkeypatch):
    """But for products that are symmetric, of which half are needed, and taps of kernels beyond the map."""
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    shape = 2, 32, 9, 11
    module = compare.make_module(key, shape)
    _, inputs = compare.make_values(module, shape)
    reference = compare.tests_of(key).published(module)
    with FlopCounterMode(display=False) as counter:
        reference(*map(torch.tensor, inputs.values()))
    counted, n, c = counter.get_total_flops(), 9 * 11, 32
    if key in ("cam", "danet"):
        counted -= 2 * c**2 * n if key == "cam" else 2 * 8**2 * n
    if key == "pcm":
        counted -= 2 * n**2 * module.embedding
    found = work_module.count_work(module, shape)[0][0]
    monkeypatch.setattr(work_module, "taps_inside", lambda size, _: 9 * size[0] * size[1])
    whole = work_module.count_work(module, shape)[0][0]
    assert whole == pytest.approx(counted, rel=0.03)
    assert found <= whole
    assert (found < 0.9 * whole) == (key in ("danet", "multi-scale", "sk", "split"))


def test_a_residual_gives_channels_and_options_to_what_it_wraps():
    module = compare.enlarged(npattn.Residual(npattn.CBAM.example()), 64)
    assert (module.channels, module.training) == (64, True)


@LINUX
def test_peak_of_memory_is_measured_in_a_process_of_its_own():
    map_megabytes = 4 * 8 * 16 * 128 * 128 / 2**20
    assert map_megabytes < compare.peak_megabytes("se", "npattn", (8, 16, 128, 128)) < 20 * map_megabytes


def test_scaling_is_printed_and_drawn(tiny, tmp_path, capsys):
    image = pytest.importorskip("matplotlib.image")
    path = tmp_path / "scaling.png"
    compare.main(["--scaling", "--repeats", "1", "--plot", str(path)])
    *_, last, written = capsys.readouterr().out.splitlines()
    assert last.split()[0] == "16"
    assert written == str(path)
    pixels = image.imread(path)
    assert pixels.shape[1] >= 1000
    assert len(np.unique(pixels[::5, ::5].reshape(-1, 4), axis=0)) > 20


def test_the_table_is_drawn(tiny, tmp_path, monkeypatch, capsys):
    image = pytest.importorskip("matplotlib.image")
    monkeypatch.setattr(compare, "can_compile", lambda: False)
    path = tmp_path / "table.png"
    compare.main(["se", "pam", "--repeats", "1", "--plot", str(path)])
    assert capsys.readouterr().out.splitlines()[-1] == str(path)
    pixels = image.imread(path)
    assert pixels.shape[1] >= 1000
    assert len(np.unique(pixels[::5, ::5].reshape(-1, 4), axis=0)) > 20


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--scaling", "--plot", "x.png"], "--plot needs matplotlib: pip install 'npattn[plot]'\n"),
        (["--plot", "x.png"], "--plot needs matplotlib: pip install 'npattn[plot]'\n"),
        (["eva"], "unknown system 'eva'; there are " + ", ".join(npattn.CATALOGUE)),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_timed(arguments, words, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", without("matplotlib"))
    with pytest.raises(SystemExit) as caught:
        compare.main(arguments)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err


def test_help_tells_of_the_plot(capsys):
    with pytest.raises(SystemExit):
        compare.main(["--help"])
    assert "--scaling --plot scaling.png" in capsys.readouterr().out


PROGRAM = """
import sys
import numpy as np
from tests.benchmarks import machine
print(machine.is_limited_to_avx2(), flush=True)
machine.limit_to_avx2()
print(machine.is_limited_to_avx2(), np.show_config(mode="dicts")["SIMD Extensions"]["found"], sys.argv[1:])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a program that is started anew there is another process")
def test_a_program_limited_to_avx2_starts_anew_and_finds_nothing_wider(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    environment = os.environ | {"PYTHONPATH": str(Path(compare.__file__).parents[2])}
    command = [sys.executable, "-W", "error", program, "an argument"]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()
    assert told[0] == "False"
    assert told[1] == "True"  # started anew, it asks first again
    assert re.fullmatch(r"True \[.*\] \['an argument'\]", told[2])
    assert "AVX512" not in told[2]
    assert "X86_V4" not in told[2]


def test_both_programs_are_limited_where_it_is_asked_for(tiny, monkeypatch, capsys):
    started = []
    monkeypatch.setattr(machine, "limit_to_avx2", lambda: started.append(1))
    monkeypatch.setattr(machine, "is_limited_to_avx2", lambda: bool(started))
    monkeypatch.setattr(compare, "can_compile", lambda: pytest.fail("compiled forms mix what both processors can do"))
    compare.main(["se", "--repeats", "1", "--avx2"])
    assert ", no wider than AVX2, " in capsys.readouterr().out.splitlines()[0]
    monkeypatch.setattr(bounds, "count_steps", lambda *_: {"one": 0.25})
    bounds.main(["residual", "--repeats", "1", "--avx2"])
    assert len(started) == 2
