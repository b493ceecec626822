import importlib.util
import re
import sys

import numpy as np
import pytest

import npattn
from tests.benchmarks import compare

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from Linux's kernel")


@pytest.fixture
def tiny(monkeypatch):
    """Small maps, and no processes of their own for memory."""
    monkeypatch.setattr(compare, "SHAPE", (2, 16, 6, 5))
    monkeypatch.setattr(compare, "SHAPES", {})
    monkeypatch.setattr(compare, "SCALING", [(1, 8, side, side) for side in (2, 3, 4)])
    monkeypatch.setattr(compare, "OPTIONS", compare.OPTIONS | {"window": 3, "stride": 2, "heads": 4})
    monkeypatch.setattr(compare, "peak_megabytes", lambda *_: 7.0)


def without(*names):
    """Stand in for `find_spec` where some packages are not installed."""
    return lambda name, find=importlib.util.find_spec: None if name in names else find(name)


@pytest.mark.parametrize("key", npattn.CATALOGUE)
def test_every_system_is_timed(key, tiny, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", without("torch"))
    compare.main([key, "--repeats", "1"])
    *_, row = capsys.readouterr().out.splitlines()
    assert re.fullmatch(rf"{key} npattn( +[\d.]+ ms){{3}} +7", row)


def test_beside_it_stands_pytorch_and_the_ratio(tiny, capsys):
    pytest.importorskip("torch")
    compare.main(["pam", "--repeats", "1"])
    names = [line[:22].strip() for line in capsys.readouterr().out.splitlines()[3:]]
    assert names == ["pam npattn", "pam pytorch", "pam fused", "ratio to pytorch", "ratio to fused"]


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
    assert len(np.unique(pixels.reshape(-1, 4), axis=0)) > 20


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--scaling", "--plot", "x.png"], "--plot needs matplotlib: pip install 'npattn[plot]'\n"),
        (["--plot", "x.png"], "--plot draws what --scaling measures: give both\n"),
    ],
)
def test_a_plot_that_cannot_be_made_is_refused_before_anything_is_timed(arguments, words, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", without("matplotlib"))
    with pytest.raises(SystemExit) as caught:
        compare.main(arguments)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith(words)


def test_help_tells_of_the_plot(capsys):
    with pytest.raises(SystemExit):
        compare.main(["--help"])
    assert "--scaling --plot scaling.png" in capsys.readouterr().out
