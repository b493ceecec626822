"""Tests of definitions: whatever faster ways there are, they are put aside. Those have their tests in `tests/fast`."""

import pytest

from npattn.ops import attention
from npattn.ops.context import definitions


@pytest.fixture(autouse=True)
def by_definition():
    """Compute every primitive by its definition."""
    with definitions():
        yield


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks that none of the tests' sizes fill evenly."""
    monkeypatch.setattr(attention, "BLOCK_QUERIES", 2)
