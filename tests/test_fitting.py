import dataclasses
import time
from typing import Literal

import numpy as np
from hypothesis import given, settings

import npattn
from npattn import Module, fitting
from npattn.fitting import search
from npattn.parameters import ones
from npattn.variations import Variation, declared, solids
from tests.naming import for_each
from tests.strategies import SYSTEMS, modules


def never(shapes, wanted):
    """No other names will do."""
    return False


def labels(module, given):
    """What is changed to make a module's shapes the given ones; None if nothing is found."""
    found = search(module, given, never)
    return found and found.labels


@dataclasses.dataclass(frozen=True)
class Kinds(Module):
    """A hyperparameter of each kind, each with a say in the shapes."""

    channels: int
    taps: int | None = None
    affine: bool = True
    mode: Literal["thin", "thick"] = "thin"
    steps: tuple[int, ...] = (1, 2)
    scale: float = 2

    @classmethod
    def example(cls):
        return cls(channels=3)

    def parameters(self):
        shapes = {"weight": (self.channels, {"thin": 5, "thick": 9}[self.mode], self.taps or 7)}
        shapes |= {f"steps.{i}": (self.channels,) for i in range(len(self.steps))}
        return {name: ones(*shape) for name, shape in shapes.items()} | ({"bias": ones(2)} if self.affine else {})

    def forward(self, params, x):
        raise NotImplementedError


Older = dataclasses.make_dataclass("Older", [("taps", "Optional[int]", None)], bases=(Kinds,), frozen=True)
"""The same with a type as older code writes it."""


@for_each(
    ("changes", "expected"),
    [
        ({"channels": 64}, ("channels=64",)),
        ({"taps": 3}, ("taps=3",)),
        ({"affine": False}, ("affine=False",)),
        ({"mode": "thick"}, ("mode='thick'",)),
        ({"steps": (1,)}, ("steps of length 1",)),
        ({"steps": (5, 6, 7, 8)}, ("steps of length 4",)),
    ],
)
def test_one_changed_hyperparameter_of_any_kind_is_found(changes, expected):
    assert labels(Kinds(3), declared(Kinds(**{"channels": 3} | changes))) == expected


def test_an_integer_that_may_be_none_is_one_however_its_type_is_written():
    assert labels(Older(3), declared(Older(3, taps=4))) == ("taps=4",)


def test_several_changed_hyperparameters_are_found_together():
    found = search(Kinds(3), declared(Kinds(48, taps=9, affine=False)), never)
    assert set(found.labels) == {"channels=48", "taps=9", "affine=False"}
    assert found.module == Kinds(48, taps=9, affine=False)


@given(modules())
@settings(max_examples=30)
def test_what_is_found_has_the_given_shapes_and_differs_as_it_says(target):
    start = type(target).example()
    found = search(start, declared(target), never)
    if found:
        assert solids(declared(found.module)) == solids(declared(target))
        assert len(found.labels) == len(found.changes) <= fitting.MAX_CHANGES
        for (name, *inner), label in zip(found.changes, found.labels, strict=True):
            assert getattr(found.module, name) != getattr(start, name)
            assert inner or " of length " in label or label == f"{name}={getattr(found.module, name)!r}"


def test_the_fewest_changes_and_a_default_before_any_other_value_are_found():
    assert labels(npattn.SqueezeExcitation(64, 4), declared(npattn.SqueezeExcitation(64))) == ("reduction=16",)
    assert labels(npattn.SqueezeExcitation(40, 4), declared(npattn.SqueezeExcitation(40, 18))) == ("reduction=16",)


def test_nothing_is_found_where_nothing_fits():
    assert labels(npattn.EfficientChannelAttention(64), {"conv.weight": (1, 1, 4)}) is None
    assert labels(npattn.SqueezeExcitation(64), {"elsewhere": (3,)}) is None


@for_each("system", SYSTEMS)
def test_a_search_in_vain_ends_when_its_time_is_over(monkeypatch, system):
    monkeypatch.setattr(fitting, "SEARCH_SECONDS", 0.01)
    module = system.example()
    given = {name: tuple(size + 11 for size in shape) for name, shape in declared(module).items()}
    start = time.thread_time()
    search(module, given | {"stray": (2,)}, never)
    assert time.thread_time() - start < 0.03


def test_a_system_whose_shapes_take_long_or_fail_ends_the_search_in_time(monkeypatch):
    monkeypatch.setattr(fitting, "SEARCH_SECONDS", 0.01)
    tried = []

    def parameter_shapes(self):
        tried.append(self)
        end = time.thread_time() + 0.002
        while time.thread_time() < end:
            pass
        if self.channels % 2:
            raise ZeroDivisionError
        return {"weight": (self.channels,)}

    monkeypatch.setattr(Kinds, "parameter_shapes", parameter_shapes)
    assert labels(Kinds(2), {"weight": (15, 21, 77, 91), "bias": (35,)}) is None
    assert len(tried) < 15


def test_a_choice_under_other_names_is_left_to_the_caller():
    given = {f"other.{name}": shape for name, shape in declared(npattn.SqueezeExcitation(64, 8)).items()}
    assert search(npattn.SqueezeExcitation(64), given, never) is None
    found = search(npattn.SqueezeExcitation(64), given, lambda shapes, wanted: (8,) in shapes.values())
    assert isinstance(found, Variation)
    assert found.labels == ("reduction=8",)


def test_shapes_that_no_memory_holds_are_no_hyperparameters():
    assert max(fitting.likely_numbers([(2**40, 3), (0, 5)])) < 2**10
    assert 0 not in fitting.likely_numbers([(0, 5)])
    assert labels(npattn.HardAttention(8), {"score.weight": (1, 2**40, 1, 1), "score.bias": (1,)}) is None


def test_axes_of_length_one_are_not_compared():
    flat = {
        name: tuple(np.squeeze(np.empty(shape)).shape)
        for name, shape in declared(npattn.PixelCorrelation(16, 8)).items()
    }
    assert labels(npattn.PixelCorrelation(16, 4), flat) == ("embedding=8",)


@dataclasses.dataclass(frozen=True)
class Stacked(Module):
    """A width that no axis tells at once, and a hyperparameter without a say in the shapes."""

    depth: int
    rounds: int = 1

    @classmethod
    def example(cls):
        return cls(depth=1)

    def parameters(self):
        return {"weight": ones(5 * self.depth + 2)}

    def forward(self, params, x):
        raise NotImplementedError


def test_common_numbers_are_tried_where_no_axis_suggests_one():
    assert labels(Stacked(1), {"weight": (47,)}) == ("depth=9",)


def test_a_hyperparameter_without_a_say_is_given_up_soon(monkeypatch):
    asked = []
    monkeypatch.setattr(Stacked, "parameter_shapes", lambda self: asked.append(self) or {"weight": (5,)})
    assert labels(Stacked(1), {"weight": (6,)}) is None
    assert 0 < len(asked) < 80


def test_a_system_is_made_once_for_however_many_searches(monkeypatch):
    asked, made = [], {}
    shapes = Stacked.parameter_shapes
    monkeypatch.setattr(Stacked, "parameter_shapes", lambda self: asked.append(self) or shapes(self))
    for _ in range(2):
        assert search(Stacked(1), {"weight": (6,), "bias": (3,)}, never, made) is None
    assert len(asked) == len(set(asked)) > 1


def test_nothing_is_found_where_the_system_fits_as_it_is():
    assert labels(npattn.SqueezeExcitation(64), declared(npattn.SqueezeExcitation(64))) is None
