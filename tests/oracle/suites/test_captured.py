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
from npattn.oracle.suites.sources import UNREAD, captured_by
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


def times(factor):
    """A function that holds a number."""

    def scale(x):
        return factor * x

    return scale


def double(x):
    """Of a module: known by its name."""
    return 2 * x


def triple(x):
    """Of a module as well."""
    return 3 * x


class Scale:
    """What may bind a method, and be compared, by its number."""

    def __init__(self, factor):
        self.factor = factor

    def of(self, x):
        """Scale it."""
        return self.factor * x


class Named(dict):
    """A dict with an attribute."""


def named(factor):
    """A dict that holds a number beside its entries."""
    found = Named()
    found.factor = factor
    return found


def marked(factor):
    """A function with an attribute."""

    def scale(x):
        return scale.factor * x

    scale.factor = factor
    return scale


def decorated(factor):
    """A class whose method a decorator has wrapped."""

    def scaled(method):
        @functools.wraps(method)
        def scaled_method(self, x):
            return factor * method(self, x)

        return scaled_method

    class Decorated:
        @scaled
        def of(self, x):
            return x

    return Decorated


def described(factor):
    """A class that takes a number from its metaclass."""

    class Meta(type):
        @property
        def factor(cls):
            return factor

    class Scaling(metaclass=Meta):
        def of(self, x):
            return type(self).factor * x

    return Scaling


HOLDERS = {
    "a function of a module": lambda factor: double if factor == 2 else triple,
    "a function in a tuple": lambda factor: (times(factor),),
    "a function in a dict": lambda factor: {"scale": times(factor)},
    "functions in another order": lambda factor: (times(factor), times(5 - factor)),
    "functions in a set": lambda factor: {times(factor)},
    "a function that a partial is given": lambda factor: functools.partial(map, times(factor)),
    "a function in a record": lambda factor: Record(times(factor)),
    "a function with a cache": lambda factor: functools.lru_cache(times(factor)),
    "a function with an attribute": marked,
    "a method of a dict": lambda factor: {"factor": factor}.get,
    "a method of an array": lambda factor: np.array([factor]).dot,
    "a dict with an attribute": named,
    "a record of a class that a call has made": lambda factor: attributed(factor)(),
    "a class with functions": lambda factor: type("Kind", (), {"scale": staticmethod(times(factor))}),
    "a class whose functions are in another order": lambda factor: type(
        "Kind", (), {"one": times(factor), "other": times(5 - factor)}
    ),
    "a class with a decorated method": decorated,
    "a class with a metaclass": described,
}


@dataclass(frozen=True)
class Record:
    """What holds anything."""

    value: object


@pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS)
def test_a_class_is_known_by_what_the_values_that_it_holds_hold(hold):
    def kind(factor):
        held = hold(factor)
        return type("Kind", (Powers,), {"held": held, "forward": lambda self, params, x: (held, x)})

    two, same, three = (captured_by(kind(factor)()) for factor in (2, 2, 3))
    assert two == same != three
    assert UNREAD not in (two, three)


def test_a_method_of_what_has_no_text_of_its_own_is_refused():
    with pytest.raises(UnwritableError, match="Scale has no text that is the same in every process"):
        hash_captured([capturing(Scale(2).of)])


def test_a_class_of_a_module_is_its_text_alone():
    assert {captured_by(system()) for system in (*OWN_SYSTEMS, Powers, Table)} == {""}
    assert captured_by(npattn.CBAM(channels=16)) == ""
