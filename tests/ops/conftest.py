"""Tests of definitions: whatever faster ways there are, they are put aside. Those have their tests in `tests/fast`."""

import pytest

from npattn.ops.primitive import definitions


@pytest.fixture(autouse=True)
def by_definition():
    """Compute every primitive by its definition."""
    with definitions():
        yield
