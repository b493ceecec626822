import io
import re
import sys
from dataclasses import replace

from npattn import CATALOGUE, cli


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


def test_author_whom_the_terminal_cannot_spell_is_escaped(monkeypatch):
    class Foreign(CATALOGUE["se"]):
        paper = replace(CATALOGUE["se"].paper, authors="Çelik, Hu")

    monkeypatch.setitem(CATALOGUE, "se", Foreign)
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    assert cli.main(["list"]) == 0
    assert rb"\xc7elik et al." in written.getvalue()
