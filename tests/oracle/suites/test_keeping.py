import dataclasses

import numpy as np
import pytest

from npattn.oracle import Recipe, cases
from npattn.oracle.suites import keeping
from npattn.oracle.suites.keeping import keep_case
from tests.own_systems import RMSNorm


@pytest.fixture
def recipe(without_budgets):
    return cases("eca", ["float16"], kinds=["ties"])[0]


@pytest.fixture
def makes(monkeypatch):
    """The recipes of which cases are made."""
    made, make = [], Recipe.make

    def counted(recipe):
        made.append(recipe)
        return make(recipe)

    monkeypatch.setattr(Recipe, "make", counted)
    return made


def test_a_case_is_made_once_and_then_read(recipe, makes, tmp_path):
    made, read = (keep_case(recipe, tmp_path / "kept") for _ in range(2))
    assert makes == [recipe]
    assert read.module == made.module == recipe.module
    for name, y in made.expected.items():
        np.testing.assert_array_equal(read.expected[name], y)
    other = dataclasses.replace(recipe, seed=recipe.seed + 1)
    for one in (other, recipe, other):
        assert keep_case(one, tmp_path / "kept").seed == one.seed
    assert makes == [recipe, other]


def test_a_case_that_is_damaged_is_made_anew(recipe, makes, tmp_path):
    keep_case(recipe, tmp_path)
    (file,) = tmp_path.glob("*/*.npz")
    file.write_bytes(file.read_bytes()[:-1])
    for _ in range(2):
        keep_case(recipe, tmp_path)
    assert makes == [recipe] * 2


@pytest.mark.parametrize("changed", ["find_version", "find_source"])
def test_cases_of_another_npattn_are_removed(recipe, makes, tmp_path, monkeypatch, changed):
    keep_case(recipe, tmp_path)
    (before,) = tmp_path.iterdir()
    monkeypatch.setattr(keeping, changed, lambda: "another")
    keep_case(recipe, tmp_path)
    (after,) = tmp_path.iterdir()
    assert after != before
    assert makes == [recipe] * 2


def test_a_case_that_cannot_be_kept_is_made(recipe, makes, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    assert keep_case(recipe, tmp_path / "file").module == recipe.module
    assert (tmp_path / "file").read_bytes() == b""


def test_cases_of_a_system_that_npattn_does_not_bring_are_never_kept(makes, tmp_path, without_budgets):
    recipe = cases(RMSNorm(3), ["float16"], kinds=["ties"])[0]
    for _ in range(2):
        keep_case(recipe, tmp_path)
    assert makes == [recipe] * 2
    assert list(tmp_path.iterdir()) == []
