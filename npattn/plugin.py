"""The pytest plugin: a marker that runs a test on the oracle's golden cases.

It is loaded in every run of pytest wherever npattn is installed, so it imports nothing until a test carries the marker.
"""

from __future__ import annotations

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


class MarkerError(pytest.Collector.CollectError):
    """A marker that can't be understood: collection reports its one line, without a traceback."""


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", MARKER)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a marked test on the cases that its markers name. None is made before its test is set up.

    Raises
    ------
    MarkerError
        If a marker can't be understood, or the test has no argument `case`.
    """
    markers = list(metafunc.definition.iter_markers("golden"))
    if not markers:
        return
    test = metafunc.definition.nodeid
    if "case" not in metafunc.fixturenames:
        raise MarkerError(f"{test}: marked golden, but has no argument `case` to be handed; add it")
    recipes = list(dict.fromkeys(recipe for marker in reversed(markers) for recipe in read_marker(test, marker)))
    metafunc.parametrize("case", recipes, ids=[recipe.id for recipe in recipes], indirect=True)


def read_marker(test: str, marker: pytest.Mark) -> list[Recipe]:
    """List the recipes that a marker asks for."""
    from npattn.oracle import cases

    if not marker.args:
        raise MarkerError(f"{test}: golden() names no system; expected some, such as golden('eca')")
    try:
        return [recipe for system in marker.args for recipe in cases(system, **marker.kwargs)]
    except (TypeError, ValueError, ArithmeticError) as error:
        given = ", ".join([*map(repr, marker.args), *(f"{name}={value!r}" for name, value in marker.kwargs.items())])
        raise MarkerError(f"{test}: golden({given}): {error}") from None


@pytest.fixture
def case(request: pytest.FixtureRequest) -> Case:
    """One of npattn's golden cases: what to feed a kernel, and `case.assert_matches` to judge what comes out."""
    if not hasattr(request, "param"):
        raise pytest.UsageError(f"{request.node.nodeid}: `case` comes with a marker: @pytest.mark.golden('eca')")
    return request.param.make()
