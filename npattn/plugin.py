"""The pytest plugin: a marker that runs a test on the oracle's golden cases.

Cases that were made are kept in pytest's cache. The plugin is loaded in every run of pytest wherever npattn is
installed, so it imports nothing until a test carries the marker.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from npattn.oracle import Case, Recipe

MARKER = (
    "golden(*systems, formats=('float32', 'bfloat16', 'float16'), kinds=('sizes', 'options', 'large', 'ties', 'zeros',"
    " 'ones', 'layouts', 'empty'), shapes=None, limit=None, seed=0, **hyperparameters): run the test on npattn's golden"
    " cases of each system (a key such as 'eca', a class or a module), handed to it as its argument `case`; shapes:"
    " sizes of one's own, (batch, channels, height, width); limit: at most so many of each system and format."
)


HANDED = pytest.StashKey[bool]()
"""Of a test: whether it, or its own fixture, was handed one of npattn's cases."""


class MarkerError(pytest.Collector.CollectError):
    """A marker that can't be understood: collection reports its one line, without a traceback."""


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", MARKER)


def pytest_pycollect_makeitem(collector: pytest.Collector, name: str, obj: object) -> None:
    """Find tests that are none any more: ``@pytest.mark.golden(Class)`` marks the class and then calls it on the test.

    `npattn.Module` refuses that at once; other classes, which are no systems, make something of it that is no test.

    Raises
    ------
    MarkerError
        If a test's name stands for an object of a class that is marked so.
    """
    kind = type(obj)
    marks = vars(kind).get("pytestmark", ())  # of the class itself; one that its body sets may stand without a list
    if name.startswith("test") and isinstance(marks, list) and any(mark.name == "golden" for mark in marks):
        raise MarkerError(
            f"{collector.nodeid}::{name}: pytest takes @pytest.mark.golden({kind.__name__}) for a mark of the class, "
            f"not of the test; and {kind.__name__} is no system, whose cases it could be: give a key of "
            "npattn.CATALOGUE, or a subclass of npattn.Module as @pytest.mark.golden.with_args(...)"
        )


@pytest.hookimpl(trylast=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a marked test on the cases that its markers name. None is made before its test is set up.

    Raises
    ------
    MarkerError
        If a marker can't be understood, the test has no argument `case`, or it has been given others by then.
    """
    markers = list(metafunc.definition.iter_markers("golden"))
    if not markers:
        return
    test = metafunc.definition.nodeid
    if "case" not in metafunc.fixturenames:
        raise MarkerError(f"{test}: marked golden, but has no argument `case` to be handed; add it")
    recipes = list(dict.fromkeys(recipe for marker in reversed(markers) for recipe in read_marker(test, marker)))
    if not recipes:
        asked = ", ".join(f"golden({describe_arguments(marker)})" for marker in markers)
        raise MarkerError(f"{test}: {asked} has no cases, so that nothing would be tested: ask for other kinds")
    try:
        metafunc.parametrize("case", recipes, ids=[recipe.id for recipe in recipes], indirect=True)
    except (ValueError, pytest.Collector.CollectError) as error:  # versions of pytest differ
        raise MarkerError(
            f"{test}: its argument `case` has parameters already, of pytest.mark.parametrize or of a fixture `case` "
            f"with params, and golden would give it npattn's cases: rename that one ({error})"
        ) from None


def read_marker(test: str, marker: pytest.Mark) -> list[Recipe]:
    """List the recipes that a marker asks for."""
    from npattn.oracle import cases

    if not marker.args:
        raise MarkerError(f"{test}: golden() names no system; expected some, such as golden('eca')")
    try:
        return [recipe for system in marker.args for recipe in cases(system, **marker.kwargs)]
    except (TypeError, ValueError, ArithmeticError) as error:
        raise MarkerError(f"{test}: golden({describe_arguments(marker)}): {error}") from None


def describe_arguments(marker: pytest.Mark) -> str:
    """Write a marker's arguments as its call has them."""
    return ", ".join([*map(repr, marker.args), *(f"{name}={value!r}" for name, value in marker.kwargs.items())])


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fail methods of unittest's classes, which pytest hands no arguments."""
    if item.get_closest_marker("golden") is None:
        return
    unittest = sys.modules.get("unittest")
    owner = getattr(item, "cls", None)
    if unittest is not None and owner is not None and issubclass(owner, unittest.TestCase):
        pytest.fail(
            f"{item.nodeid}: golden hands no case to a method of unittest.TestCase: drop the class's base, or loop "
            "over npattn.oracle.cases('eca') with self.subTest(str(recipe)) and recipe.make()",
            pytrace=False,
        )


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Fail a marked test that another fixture `case` has been handed to."""
    if item.get_closest_marker("golden") is not None and not item.stash.get(HANDED, False):
        pytest.fail(
            f"{item.nodeid}: a fixture `case` of its module, class or conftest stands before npattn's, and would be "
            "tested in place of its golden cases: rename it, or take an argument `case` in it to build on npattn's",
            pytrace=False,
        )


@pytest.fixture
def case(request: pytest.FixtureRequest) -> Case:
    """One of npattn's golden cases: what to feed a kernel, and `case.assert_matches` to judge what comes out."""
    if not hasattr(request, "param"):
        raise pytest.UsageError(f"{request.node.nodeid}: `case` comes with a marker: @pytest.mark.golden('eca')")
    request.node.stash[HANDED] = True
    cache: pytest.Cache | None = getattr(request.config, "cache", None)
    if cache is None:  # -p no:cacheprovider
        return request.param.make()
    from npattn.oracle.suites import keep_case

    try:
        folder = Path(cache.mkdir("npattn"))
    except OSError:  # where nothing can be written
        return request.param.make()
    return keep_case(request.param, folder)
