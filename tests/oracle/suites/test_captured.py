"""What classes and functions hold beside their text."""

import functools
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

import numpy as np
import pytest

import npattn
from npattn.oracle.suites.captured import UnwritableError, hash_captured
from npattn.oracle.suites.sources import captured_by
from tests.own_systems import OWN_SYSTEMS, Powers, Table


class Colour(Enum):
    """A choice."""

    RED = 1
    BLUE = 2


def capturing(value):
    """A function that holds a value."""
    return lambda x: (value, x)


VALUES = [
    *(2, 2.0, True, "2", b"2", 2j, 3, math.nan, range(2), slice(2), slice(3)),
    *((2,), [2], {2}, {2: 3}, {3: 2}, frozenset((2,)), ((2,),), ([2],)),
    *(np.float32(2), np.float64(2), np.ones(3), np.ones(3, np.float32), np.ones((3, 1)), np.zeros(3), np.eye(2).T * 2),
    *(np.dtype("float32"), np.dtype("float64"), np.add, np.exp, math.sqrt, math.exp, Colour.RED, Colour.BLUE),
    *(functools.partial(max, 2), functools.partial(max, 3), functools.partial(min, 2)),
    *(npattn.CBAM(channels=16), npattn.CBAM(channels=32), npattn.BAM(channels=16)),
]


def test_a_function_is_known_by_the_value_that_it_captures():
    hashes = [hash_captured([capturing(value)]) for value in VALUES]
    assert "" not in hashes
    assert len(set(hashes)) == len(VALUES)
    assert hashes == [hash_captured([capturing(value)]) for value in VALUES]


@pytest.mark.parametrize("value", [object(), [object()], {"a": iter("")}, np.array([object()])])
def test_a_value_without_a_text_of_its_own_is_refused(value):
    with pytest.raises(UnwritableError, match="has no text that is the same in every process"):
        hash_captured([capturing(value)])


def test_a_value_within_itself_is_refused():
    value = []
    value.append(value)
    with pytest.raises(UnwritableError, match="nested"):
        hash_captured([capturing(value)])


def test_a_set_is_the_same_in_every_process():
    code = (
        "from tests.oracle.suites.test_captured import *; print(hash_captured([capturing({'a', 'b', 'c', ('d', 1)})]))"
    )
    environments = [os.environ | {"PYTHONHASHSEED": seed} for seed in "01"]
    found = {subprocess.check_output([sys.executable, "-c", code], env=one) for one in environments}
    assert len(found) == 1


def attributed(number):
    """A class with a number as its attribute, and one as a default."""

    @dataclass(frozen=True)
    class Attributed(npattn.Module):
        channels: int = 2
        factor: ClassVar[float] = number

        def forward(self, params, x, power=number):
            return npattn.Pass(self.factor**power * x, lambda dy: (self.factor**power * dy, {}))

    return Attributed


def test_a_class_that_a_call_has_made_is_known_by_its_attributes():
    assert captured_by(attributed(2)()) == captured_by(attributed(2)()) != captured_by(attributed(3)())
    kinds = [type("Kind", (npattn.CBAM,), {"bound": bound}) for bound in (1, 1, 2)]
    one, same, other = (captured_by(kind(channels=16)) for kind in kinds)
    assert one == same != other


def test_a_class_of_a_module_is_its_text_alone():
    assert {captured_by(system()) for system in (*OWN_SYSTEMS, Powers, Table)} == {""}
    assert captured_by(npattn.CBAM(channels=16)) == ""
