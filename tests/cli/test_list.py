import io
import re
import sys
from dataclasses import replace

import pytest

from npattn import CATALOGUE, cli
from npattn.module import FAMILIES
from npattn.oracle.systems import SYSTEMS

PRIMITIVES = "primitives, which golden takes too"


def tables(out):
    """The lines of each family, by its name, below the heading's."""
    heading, *groups = out.split("\n\n")
    found = {group.splitlines()[0]: group.splitlines()[1:] for group in groups}
    return heading, {name: lines for name, lines in found.items() if name != PRIMITIVES}


def test_list_has_a_line_for_each_system_below_its_family_the_oldest_paper_first(command):
    status, out, err = command("list")
    assert (status, err) == (0, "")
    heading, families = tables(out)
    assert re.split(r"  +", heading) == ["key", "system", "paper", "size"]
    assert list(families) == list(FAMILIES)
    listed = []
    for family, lines in families.items():
        years = []
        for line in lines:
            key, *described = re.split(r"  +", line)
            system = CATALOGUE[key]
            module = system.example()
            arrays = [array for name, array in module.init().items() if name in module.parameter_shapes()]
            first, *others = system.paper.authors.split(", ")
            paper = f"{first}{' et al.' if others else ''} {system.paper.year}"
            assert system.family == family
            assert described == [system.__name__, paper, f"{sum(array.size for array in arrays):,}"]
            years.append(system.paper.year)
            listed.append(key)
        assert years == sorted(years)
    assert sorted(listed) == sorted(CATALOGUE)


def test_list_of_a_family_has_no_other(command):
    _, everything = tables(command("list")[1])
    status, out, err = command("list", "--family", "other", "--family", "spatial")
    assert (status, err) == (0, "")
    _, listed = tables(out)
    assert list(listed) == ["spatial", "other"]
    for family, lines in listed.items():
        assert [line.split()[0] for line in lines] == [line.split()[0] for line in everything[family]]


def test_list_ends_with_the_primitives_that_golden_takes(command):
    _, _, listed = command("list")[1].partition(f"\n\n{PRIMITIVES}\n")
    assert listed.split() == [key for key in SYSTEMS if key not in CATALOGUE]


def test_list_fits_80_columns_and_ends_no_line_with_a_space(command):
    for line in command("list")[1].splitlines():
        assert len(line) <= 80
        assert line == line.rstrip()


def test_columns_of_a_list_begin_below_their_heading(command):
    heading, families = tables(command("list")[1])
    for column in ("system", "paper", "size"):
        start = heading.index(column)
        for line in (line for lines in families.values() for line in lines):
            assert line[start - 2 : start] == "  "
            assert line[start] != " "


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])  # the second is the C locale's
def test_author_whom_the_terminal_cannot_spell_is_escaped(monkeypatch, errors):
    class Foreign(CATALOGUE["se"]):
        paper = replace(CATALOGUE["se"].paper, authors="Çelik, Hu")

    monkeypatch.setitem(CATALOGUE, "se", Foreign)
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii", errors=errors))
    assert cli.main(["list"]) == 0
    assert rb"\xc7elik et al." in written.getvalue()
