import importlib.util
import re
import sys
import unicodedata

import numpy as np
import pytest

import npattn
from npattn.cli.trace import SMALL_SIZE, draw_upstream, shrink, small_values
from npattn.tracing.pages import equations
from tests.cli.running import assert_one_complaint
from tests.naming import for_each
from tests.strategies import SYSTEMS

every_system = pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.key)
page = pytest.mark.skipif(importlib.util.find_spec("latex2mathml") is None, reason="the extra page is not installed")


def columns(line):
    return sum(not unicodedata.combining(sign) for sign in line)


@every_system
@for_each("options", [["--small"], ["--size", "4x6"]])
def test_every_system_is_printed_on_80_columns_with_all_its_tags(command, system, options):
    status, out, err = command("trace", system.key, *options)
    assert (status, err) == (0, "")
    assert max(map(columns, out.splitlines())) <= 80
    assert "\\" not in out
    assert out.index("\nforward") < out.index("\nbackward")
    tags = re.findall(r"^(?:.* / )?(\(\d+'?\)) ", out, flags=re.MULTILINE)
    back = [tag.replace("'", "") for tag in tags if "'" in tag]
    assert back
    assert {*back} == {*tags} - {tag for tag in tags if "'" in tag}


def test_the_small_example_can_be_checked_with_a_pencil(command):
    _, out, _ = command("trace", "eca", "--small", "channels=2")
    found = dict(re.findall(r"^ +(\S+) = (.*)$", out, flags=re.MULTILINE))
    second = re.search(r"^ +x = .*\n +(\[.*\])$", out, flags=re.MULTILINE)[1]
    rows = zip(*(re.split(r"\] +\[", text) for text in (found["x"], second)), strict=True)
    x = [[int(n) for text in channel for n in re.findall(r"-?\d+", text)] for channel in rows]
    p = [int(n) for n in re.findall(r"-?\d+", found["p"])]
    assert p == [sum(channel) / 4 for channel in x]
    w = [int(n) for n in re.findall(r"-?\d+", found["conv.weight"])]
    z = [int(n) for n in re.findall(r"-?\d+", found["z"])]
    assert z == [w[1] * p[0] + w[2] * p[1], w[0] * p[0] + w[1] * p[1]]
    assert "(1)  p_bc = 1/N Σ_n x_bcn\n     p, back_pool = ops.global_average_pool(x)\n     p = [" in out
    assert all(f"\n{tag}  " in out for tag in equations("efficient_channel"))


@for_each("key", ["se", "eca", "cbam-channel", "mhsa", "sdpa"])
def test_on_paper_gates_differ_and_every_parameter_has_a_gradient(key):
    module = shrink(npattn.CATALOGUE[key].example())
    params, inputs = small_values(module, SMALL_SIZE, seed=0)
    run = module(params, *inputs.values())
    _, grads = run.backward(draw_upstream(run.output, 0, whole=True))
    assert all(np.unique(a.round(3)).size == a.size for name, a in run.attention.items() if name == "channel")
    assert all(np.abs(gradient).max() > 1e-3 for gradient in grads.values())


def test_a_pixel_shows_what_the_map_has_there(command):
    _, whole, _ = command("trace", "eca", "--size", "4x6")
    _, there, _ = command("trace", "eca", "--size", "4x6", "--at", "100,150")
    row = next(line for line in there.splitlines() if line.startswith("  x "))
    x = npattn.cli.photo.photo_values(npattn.CATALOGUE["eca"].example(), (4, 6), 0)[1]["x"][0, :, 2, 3]
    assert row.split()[1:] == ["1x32", *(f"{n:.4g}" for n in (x.mean(), np.sqrt((x**2).mean()), x.min(), x.max()))]
    same = [line for line in whole.splitlines() if line.startswith(("  p ", "  conv.weight"))]
    assert [line for line in there.splitlines() if line.startswith(("  p ", "  conv.weight"))] == same


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ecaa"], "unknown system 'ecaa'; did you mean 'eca'?"),
        (["eca", "channel=3"], "channel"),
        (["eca", "--at", "75"], "is no pixel"),
        (["eca", "--small", "--at", "75,115"], "--small leaves out"),
        (["eca", "--size", "4x6", "--at", "0,0"], "shows the middle of the photograph"),
        (["eca", "--size", "0x6"], "is no size"),
        (["eca", "channels=99999999"], "expected no more than"),
        pytest.param(["eca", "channels=99999999", "--page", "out.html"], "expected no more than", marks=page),
        (["eca", "--small", "--page", "out.html"], "--small selects what is printed"),
        (["eca", "--at", "75,115", "--page", "out.html"], "--at selects what is printed"),
        (["eca", "--force"], "expected --page FILE too"),
        (["soft-hard", "--size", "1x1"], "k"),
    ],
)
def test_what_cannot_be_traced_is_refused_on_one_line(command, folder, arguments, words):
    assert_one_complaint(command("trace", *arguments), words)
    assert not [*folder.iterdir()]


@page
def test_a_page_holds_both_examples_and_needs_no_network(command, folder):
    assert command("trace", "eca", "channels=8", "--page", "out.html", "--size", "4x6") == (0, "out.html\n", "")
    text = (folder / "out.html").read_text("utf-8")
    assert "EfficientChannelAttention(channels=8)" in text
    assert "EfficientChannelAttention(channels=2, kernel_size=3)" in text
    assert "1×8×4×6" in text
    assert re.findall(r"(?:src|href)=\"(?!#|data:)[^\"]*|url\([^)]*|@import", text) == []


@page
def test_a_page_replaces_a_file_only_when_told_to(command, folder):
    (folder / "out.html").write_text("mine")
    assert_one_complaint(command("trace", "eca", "--page", "out.html"), "exists already", "--force")
    assert (folder / "out.html").read_text() == "mine"
    assert command("trace", "eca", "--size", "4x6", "--page", "out.html", "--force")[0] == 0
    assert (folder / "out.html").read_text("utf-8").startswith("<!DOCTYPE html>")
    assert len([*folder.iterdir()]) == 1


def test_without_the_extra_one_line_says_what_to_install(command, folder, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("npattn.tracing.web")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "latex2mathml.converter", None)
    assert_one_complaint(command("trace", "eca", "--page", "out.html"), "pip install 'npattn[page]'")
    assert not [*folder.iterdir()]
