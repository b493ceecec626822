import os
import subprocess
import sys
import threading
import timeit

import numpy as np
import pytest

import npattn
from npattn import ops
from npattn.module import as_tuple
from npattn.ops.context import CONTEXT, definitions, replacing
from npattn.ops.primitive import PRIMITIVES, numbers_of, primitive
from npattn.oracle import generic_values
from npattn.oracle.primitives import PRIMITIVE_SYSTEMS

X = np.array([1.0, -2.0])


@pytest.fixture(autouse=True)
def by_definition():
    """Nothing is put aside here."""


@pytest.fixture
def double():
    """A primitive of its own, with a faster way for numbers of at least 100 that says who it is."""

    @primitive
    def double(x, *, extra=0.0):
        return 2 * x + extra, lambda dy: 2 * dy

    @double.faster(suits=lambda x, *, extra=0.0: x.max() >= 100)
    def by_adding(x, *, extra=0.0):
        return x + x + extra + 0.25, lambda dy: dy + dy

    yield double
    PRIMITIVES.remove(double)


class Foreign(np.ndarray):
    """An array of another kind, which computes some primitives in its own way."""

    def __array_function__(self, function, types, arguments, options):
        if getattr(function, "__name__", "") == "double":
            assert types == (Foreign,)
            return "foreign", arguments, options
        return NotImplemented if not function.__module__.startswith("numpy") else function


def answer(value):
    return lambda primitive, arguments, options: (value, None)


def pass_on(*_):
    return NotImplemented


def test_a_primitive_is_its_definition(double):
    assert double(X)[0].tolist() == [2.0, -4.0]
    assert double(X, extra=1.0)[0].tolist() == double.definition(X, extra=1.0)[0].tolist() == [3.0, -3.0]
    assert double.__name__ == "double"


def test_a_faster_way_is_taken_where_it_suits(double):
    assert double(X)[0].tolist() == [2.0, -4.0]
    assert double(100 * X, extra=1.0)[0].tolist() == [201.25, -398.75]


def test_a_primitive_may_be_called_by_names_alone(double):
    assert double(x=X, extra=1.0)[0].tolist() == [3.0, -3.0]
    assert double(x=100 * X)[0].tolist() == [200.25, -399.75]


def test_of_several_ways_that_suit_the_first_is_taken(double):
    double.faster(suits=lambda x, **_: True)(lambda x, **_: ("second", None))
    assert double(100 * X)[0].tolist() == [200.25, -399.75]
    assert double(X)[0] == "second"


def test_the_kind_of_array_is_asked_before_who_watches(double):
    with replacing(answer("handler")):
        assert double((100 * X).view(Foreign), extra=1.0)[0] == "foreign"


def test_who_watches_is_asked_before_faster_ways(double):
    with replacing(answer("handler")):
        assert double(100 * X)[0] == "handler"
    assert double(100 * X)[0].tolist() == [200.25, -399.75]


def test_a_kind_that_does_not_answer_goes_on(double):
    silent = type("Silent", (np.ndarray,), {"__array_function__": pass_on})
    assert double(X.view(silent))[0].tolist() == [2.0, -4.0]


class Plain(np.ndarray):
    """A subclass that has nothing of its own."""


class Polite(np.ndarray):
    """A subclass that asks ndarray to do what it doesn't know."""

    def __array_function__(self, function, types, arguments, options):
        return super().__array_function__(function, types, arguments, options)


@pytest.mark.parametrize("kind", [Plain, Polite])
def test_a_kind_that_leaves_it_to_ndarray_goes_on(double, kind):
    assert double(X.view(kind))[0].tolist() == [2.0, -4.0]
    with replacing(answer("handler")):
        assert double(X.view(kind))[0] == "handler"


def test_who_watches_sees_primitive_and_arguments_and_may_pass(double):
    seen = []

    def watch(primitive, arguments, options):
        seen.append((primitive, arguments, options))
        return NotImplemented

    with replacing(watch):
        assert double(X, extra=1.0)[0].tolist() == [3.0, -3.0]
    assert seen == [(double, (X,), {"extra": 1.0})]


def test_the_innermost_handler_is_asked_first_and_its_own_calls_go_outwards(double):
    def twice(primitive, arguments, options):
        return 2 * primitive(*arguments, **options)[0], None

    def plus(primitive, arguments, options):
        return primitive(*arguments, **options)[0] + 1, None

    with replacing(plus), replacing(twice):
        assert double(X)[0].tolist() == [2 * (2 + 1), 2 * (-4 + 1)]
    with replacing(twice), replacing(plus):
        assert double(X)[0].tolist() == [2 * 2 + 1, 2 * -4 + 1]
    with replacing(twice), replacing(pass_on):
        assert double(X)[0].tolist() == [4.0, -8.0]


def test_what_a_primitive_calls_is_shown_too():
    seen = []
    with replacing(lambda primitive, *_: seen.append(primitive.__name__) or NotImplemented):
        ops.hard_swish(X)
    assert seen == ["hard_swish", "hard_sigmoid"]


def test_an_error_of_a_handler_is_raised_and_leaves_all_as_it_was(double):
    def fail(*_):
        raise RuntimeError("not today")

    with replacing(pass_on):
        before = CONTEXT.get()
        with pytest.raises(RuntimeError, match="not today"), replacing(fail):
            double(X)
        assert CONTEXT.get() == before
    with replacing(pass_on), replacing(fail):
        before = CONTEXT.get()
        with pytest.raises(RuntimeError, match="not today"):
            double(X)
        assert CONTEXT.get() == before


def test_definitions_put_faster_ways_aside_and_bring_them_back(double):
    with npattn.definitions():
        assert double(100 * X)[0].tolist() == [200.0, -400.0]
        with definitions():
            assert double(100 * X)[0].tolist() == [200.0, -400.0]
        assert double(100 * X)[0].tolist() == [200.0, -400.0]
    assert double(100 * X)[0].tolist() == [200.25, -399.75]
    with pytest.raises(ZeroDivisionError), definitions():
        raise ZeroDivisionError
    assert double(100 * X)[0].tolist() == [200.25, -399.75]


def test_definitions_and_handlers_hold_within_each_other(double):
    def twice(primitive, arguments, options):
        return 2 * primitive(*arguments, **options)[0], None

    for outer, inner in ((definitions, lambda: replacing(twice)), (lambda: replacing(twice), definitions)):
        with outer(), inner():
            assert double(100 * X)[0].tolist() == [400.0, -800.0]
    with definitions(), replacing(pass_on):
        assert double(100 * X)[0].tolist() == [200.0, -400.0]


def test_other_threads_are_not_affected(double):
    found = []
    with definitions(), replacing(answer("handler")):
        thread = threading.Thread(target=lambda: found.append(double(100 * X)[0].tolist()))
        thread.start()
        thread.join()
    assert found == [[200.25, -399.75]]


@pytest.mark.parametrize(
    ("value", "way"), [("1", "definition"), ("yes", "definition"), ("0", "faster"), ("", "faster"), (" Off ", "faster")]
)
def test_the_environment_puts_faster_ways_aside_for_a_whole_process(value, way):
    program = (
        "from npattn.ops.primitive import primitive\n"
        "call = primitive(lambda x: 'definition')\n"
        "call.faster(suits=lambda x: True)(lambda x: 'faster')\n"
        "print(call(1.0))"
    )
    environment = os.environ | {"NPATTN_DEFINITIONS": value}
    found = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == way


def test_the_way_through_costs_at_most_a_microsecond(double):
    def bare(x, *, extra=0.0):
        return x, None

    @primitive
    def nothing(x, *, extra=0.0):
        return x, None

    nothing.faster(suits=lambda x, *, extra=0.0: x.size > 1000)(bare)
    PRIMITIVES.remove(nothing)
    through, without = (
        min(timeit.repeat(lambda f=f: f(X, extra=1.0), number=1000, repeat=50)) / 1000 for f in (nothing, bare)
    )
    slow = max(1.0, without / 60e-9)  # how many times longer than on an idle machine a call takes
    assert through - without < slow * 1e-6


def arrays_in(result):
    if isinstance(result, tuple):
        return [a for part in result for a in arrays_in(part)]
    return [result] if hasattr(result, "dtype") else []


def numpy_number(value):
    """The same number, or several, of the type that lifts or wraps the soonest."""
    if isinstance(value, (tuple, list)):
        return type(value)(map(numpy_number, value))
    if isinstance(value, bool) or value is None:
        return value if value is None else np.bool_(value)
    kind = np.float64 if isinstance(value, float) else np.uint8 if 0 <= value < 256 else np.int64
    return kind(value)


def test_numbers_of_numpy_are_to_all_primitives_what_they_are_as_pythons():
    """Whatever calls primitives with numbers is given them as NumPy's, by definitions and by faster ways."""
    seen, wrong = set(), set()

    def give_numpys(called, arguments, options):
        numbers = numbers_of(called.definition)
        placed = [numpy_number(a) if i in numbers.values() else a for i, a in enumerate(arguments)]
        named = {name: numpy_number(a) if name in numbers else a for name, a in options.items()}
        result, expected = called(*placed, **named), called(*arguments, **options)
        if numbers:
            seen.add(called.__name__)
            pairs = zip(arrays_in(result), arrays_in(expected), strict=True)
            same = all(a.dtype == b.dtype and np.array_equal(a, b, equal_nan=True) for a, b in pairs)
            wrong.update(set() if same else {called.__name__})
        return result

    for system in (npattn.CATALOGUE | PRIMITIVE_SYSTEMS).values():
        module = system.example()
        params, inputs = generic_values(module, dtype=np.float32)
        with replacing(give_numpys):
            run = module(params, *inputs.values())
            dy = tuple(np.ones_like(y) for y in as_tuple(run.output))
            run.backward(dy if isinstance(run.output, tuple) else dy[0])
    assert not wrong
    unseen = {p.__name__ for p in PRIMITIVES if numbers_of(p.definition)} - seen
    assert unseen == {"mean", "first_maximum"}  # of which only other primitives make use


def test_every_public_function_of_ops_is_a_primitive_but_for_those_that_make_no_arrays():
    functions = {name for name in ops.__all__ if not isinstance(getattr(ops, name), type)}
    assert functions - {p.__name__ for p in PRIMITIVES} == {"window_starts"}
