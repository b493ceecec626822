import dataclasses
import enum
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest

import npattn
from npattn import Module, Pass
from npattn.fields import (
    boolean,
    checked,
    choice,
    choices,
    integer,
    integers,
    number,
    positive,
    probability,
    side,
    two_integers,
)
from tests.naming import for_each


@dataclass(frozen=True)
class Kept(Module):
    """One hyperparameter of every kind."""

    channels: int = integer(least=2)
    groups: int | None = integer(least=1, default=None)
    sizes: tuple[int, ...] = integers(least=1, default=(3, 5), odd=True)
    slope: float = number(default=0.5)
    eps: float = positive(default=1e-5)
    rate: float = probability(default=0.0)
    flag: bool = boolean(default=False)
    mode: str = choice(("one", "two"), default="one")
    names: tuple[str, ...] = choices(("a", "b"), default=("a",))
    shape: tuple[int, int] | None = two_integers(default=None)
    extent: int | tuple[int, int] = side(least=1, default=3)
    free: object = "anything"
    steps: int = integer(least=1, most=4, default=1)

    @classmethod
    def example(cls):
        return cls(channels=2)

    def forward(self, params, x):
        return Pass(x, lambda dy: (dy, {}))


@for_each(
    ("options", "error", "message"),
    [
        ({"channels": 1}, ValueError, "Kept: channels=1; expected an integer of at least 2"),
        ({"channels": 2.0}, TypeError, "Kept: channels=2.0 is a float; expected an int"),
        ({"channels": None}, TypeError, "Kept: channels=None is a NoneType; expected an int"),
        ({"steps": 5}, ValueError, "Kept: steps=5; expected an integer from 1 to 4"),
        ({"groups": 0}, ValueError, "Kept: groups=0; expected an integer of at least 1"),
        ({"groups": True}, TypeError, "Kept: groups=True is a bool; expected an int"),
        ({"sizes": 3}, TypeError, "Kept: sizes=3 is an int; expected a tuple of ints"),
        ({"sizes": []}, ValueError, "Kept: sizes=[]; expected at least one integer, such as (3, 5)"),
        ({"sizes": (3, 0)}, ValueError, "Kept: sizes[1]=0; expected an integer of at least 1"),
        ({"sizes": (3, 1.0)}, TypeError, "Kept: sizes[1]=1.0 is a float; expected an int"),
        (
            *({"sizes": (4,)}, ValueError),
            "Kept: sizes[0]=4; expected an odd number, which has as many neighbours on either side: 3 or 5",
        ),
        ({"slope": float("nan")}, ValueError, "Kept: slope=nan; expected a finite number"),
        ({"slope": None}, TypeError, "Kept: slope=None is a NoneType; expected a number"),
        ({"eps": 0}, ValueError, "Kept: eps=0; expected a number above 0"),
        ({"eps": float("inf")}, ValueError, "Kept: eps=inf; expected a finite number"),
        ({"rate": 1}, ValueError, "Kept: rate=1; expected a probability of at least 0 and below 1"),
        ({"rate": -0.1}, ValueError, "Kept: rate=-0.1; expected a probability of at least 0 and below 1"),
        ({"rate": "0"}, TypeError, "Kept: rate='0' is a str; expected a number"),
        ({"flag": 1}, TypeError, "Kept: flag=1 is an int; expected True or False"),
        ({"mode": "on"}, ValueError, "Kept: mode='on'; did you mean 'one'? (expected 'one' or 'two')"),
        ({"mode": 1}, TypeError, "Kept: mode=1 is an int; expected 'one' or 'two'"),
        ({"names": "a"}, TypeError, "Kept: names='a' is a str; expected a tuple of some of a, b"),
        ({"names": ("a", "a")}, ValueError, "Kept: names=('a', 'a') holds 'a' twice; expected each at most once"),
        ({"names": ()}, ValueError, "Kept: names=(); expected at least one of a, b"),
        ({"shape": 7}, ValueError, "Kept: shape=7; expected None or a pair (height, width)"),
        ({"shape": (7, 5, 3)}, ValueError, "Kept: shape=(7, 5, 3); expected None or a pair (height, width)"),
        ({"shape": (7, 0)}, ValueError, "Kept: shape[1]=0; expected an integer of at least 1"),
        ({"extent": 0}, ValueError, "Kept: extent=0; expected an integer of at least 1"),
        ({"extent": (1, 2, 3)}, ValueError, "Kept: extent=(1, 2, 3); expected an integer, or a pair (height, width)"),
        ({"extent": (1, 2.0)}, TypeError, "Kept: extent[1]=2.0 is a float; expected an int"),
    ],
)
def test_what_a_field_does_not_allow_is_refused(options, error, message):
    with pytest.raises(error) as caught:
        Kept(**{"channels": 2} | options)
    assert str(caught.value) == message
    with pytest.raises(error):
        dataclasses.replace(Kept(channels=2), **options)


def test_what_a_field_allows_is_kept_and_lists_become_tuples():
    assert Kept(3, 1, [7, 1], 2, 0.1, 0.5, True, "two", ["b", "a"], [7, 5], [2, 1], free=None) == Kept(
        3, 1, (7, 1), 2, 0.1, 0.5, True, "two", ("b", "a"), (7, 5), (2, 1), None
    )
    assert Kept(2, groups=None, shape=None) == Kept(channels=2)
    assert hash(Kept(2, names=["a"], shape=[1, 2])) == hash(Kept(2, shape=(1, 2)))


def test_scalars_of_numpy_are_kept_as_numbers_of_python_which_lift_nothing():
    kept = Kept(np.int64(3), np.int8(1), [np.int32(7)], np.float32(2), np.float64(0.1), rate=np.float16(0.5))
    assert kept == Kept(3, 1, (7,), 2.0, 0.1, rate=0.5)
    values = [value for held in vars(kept).values() for value in (held if isinstance(held, tuple) else (held,))]
    assert not any(isinstance(value, np.generic) for value in values)
    module = npattn.SimAM(channels=4, e_lambda=np.float64(1e-3))
    assert module({}, np.ones((1, 4, 3, 3), np.float32)).output.dtype == np.float32


Pool = enum.Enum("Pool", {"AVERAGE": "avg", "CODE": "code"}, type=str)
"""Choices of a user's own, equal to ours, though their text is another."""


def test_choices_and_numbers_of_other_types_are_kept_as_what_they_are_equal_to():
    assert repr(npattn.CBAM(8, reduction=2, pools=(Pool.AVERAGE,))) == repr(npattn.CBAM(8, reduction=2, pools=("avg",)))
    assert repr(npattn.SimAM(4, variant=Pool.CODE)) == repr(npattn.SimAM(4, variant="code"))
    for slope in (Fraction(1, 4), np.longdouble(0.25)):
        assert type(npattn.SimAM(4, e_lambda=slope).e_lambda) is float
        assert npattn.SimAM(4, e_lambda=slope) == npattn.SimAM(4, e_lambda=0.25)
    with pytest.raises(ValueError, match=r"e_lambda=1000.*; expected a finite number"):
        npattn.SimAM(4, e_lambda=10**400)


def test_a_field_without_default_has_to_be_given():
    with pytest.raises(TypeError, match=r"^Kept: missing hyperparameter 'channels' \(expected channels, groups"):
        Kept()


def test_fields_of_a_subclass_are_checked_under_its_name_and_plain_ones_are_not():
    @dataclass(frozen=True)
    class Own(Kept):
        slope: float = 0.5
        more: int = 0

    assert Own(channels=2, slope="steep", more=-1).slope == "steep"
    with pytest.raises(ValueError, match=r"^Own: channels=1; expected"):
        Own(channels=1)


def test_a_check_of_ones_own_says_what_is_kept():
    def upper(system, name, value):
        if not value:
            raise ValueError(f"{system}: {name} is empty")
        return value.upper()

    @dataclass(frozen=True)
    class Named(Kept):
        title: str = checked(upper, default="x")

    assert Named(channels=2).title == "X"
    assert Named(channels=2, title="abc").title == "ABC"
    with pytest.raises(ValueError, match=r"^Named: title is empty$"):
        Named(channels=2, title="")


def test_a_field_that_no_argument_sets_may_be_set_after_the_checks_and_one_that_is_never_set_is_named():
    @dataclass(frozen=True)
    class Late(Kept):
        half: int = dataclasses.field(init=False)

        def __post_init__(self):
            super().__post_init__()
            object.__setattr__(self, "half", self.channels // 2)

    @dataclass(frozen=True)
    class Never(Kept):
        half: int = dataclasses.field(init=False)

    assert Late(channels=6).half == 3
    assert dataclasses.replace(Late(channels=6), channels=8).half == 4
    message = r"^Never: half is a field\(init=False\) without a value; set it in __post_init__, by object.__setattr__"
    with pytest.raises(TypeError, match=message):
        Never(channels=6)


def test_a_field_that_is_checked_before_it_is_set_is_named():
    @dataclass(frozen=True)
    class Early(Kept):
        parts: int = integer(least=1, default=2, divides="half")
        half: int = dataclasses.field(init=False)

        def __post_init__(self):
            super().__post_init__()
            object.__setattr__(self, "half", self.channels // 2)

    with pytest.raises(TypeError, match=r"^Early: half has no value yet when it is checked; set it before super\(\)"):
        Early(channels=8)
