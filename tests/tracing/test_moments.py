"""A step keeps what its value was at its moment, whoever writes to the array later, and goes when its trace goes."""

import copy
import gc
import importlib.util
import weakref

import numpy as np
import pytest

import npattn
from npattn.module import as_tuple
from npattn.ops.context import replacing
from npattn.oracle import generic_values
from npattn.tracing import copies, trace, traces
from tests.naming import for_each

X = np.random.RandomState(0).standard_normal((2, 4, 3, 5))
LARGE = np.random.RandomState(1).standard_normal((2, 64, 32, 32))  # copied on all cores

SOURCE = """
import functools
from contextlib import contextmanager

import numpy as np
from npattn import ops
from npattn.module import Module, Pass


@contextmanager
def within(y):
    y += 1
    yield
    y += 1


def helper(y):
    y += 2


class Writing(Module):
    channels = 1

    def input_shapes(self, batch, height, width):
        return {"x": X}

    def forward(self, params, x):
        y = x * 1.0
        same, flat, rows, it = y, y.reshape(-1), y[:, ::-1], map(np.add, [y, y], [1, 1], [y, y])
        context = within(y)
        y = y  # (1)
        WRITE
        z = same  # (2)

        def backward(dy):
            y = dy * 1.0
            same, flat, rows, it = y, y.reshape(-1), y[:, ::-1], map(np.add, [y, y], [1, 1], [y, y])
            context = within(y)
            y = y  # (2')
            WRITE
            z = same  # (1')
            return z, {}

        return Pass(z, backward)
"""

WAYS = {
    "in place": "y += 2",
    "to a part": "y[...] = y + 2",
    "to another name of it": "same[...] += 2",
    "to a view of another shape": "flat += 2",
    "to a part of a view": "rows[:, :, ::-1] += 2",
    "to an attribute": "y.flat = flat + 2",
    "as out=": "np.add(y, 2, out=y)",
    "as the third argument": "np.add(y, 2, y)",
    "as out= of a view": "np.add(rows, 2, out=rows)",
    "at indices": "np.add.at(flat, np.arange(flat.size), 2)",
    "by a function of NumPy's": "np.copyto(rows, rows + 2)",
    "by a method": "y.__iadd__(2)",
    "by a function": "helper(flat)",
    "by a partial call": "functools.partial(helper, rows)()",
    "by a function that no text shows": "[*map(helper, [rows])]",
    "by an iterator in a loop": "for _ in it: pass",
    "by an iterator that is unpacked": "one, two = it",
    "by an iterator in a list": "ones = [1 for _ in it]",
    "by an iterator in a call's arguments": "ops.add(*it, 3)",
    "by a context": "with context: pass",
    "by a primitive that may": "ops.accumulate(y, np.full_like(y, 2)) is y or helper(y)",
}


@pytest.fixture
def make(tmp_path, monkeypatch):
    def make(write):
        path = tmp_path / "writing.py"
        path.write_text(SOURCE.replace("WRITE", write), encoding="utf-8")
        spec = importlib.util.spec_from_file_location("writing", path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(__import__("sys").modules, "writing", module)
        spec.loader.exec_module(module)
        module.X = X.shape
        return module.Writing()

    return make


@pytest.mark.parametrize("way", WAYS)
def test_a_step_is_not_written_to_after_its_moment(way, make):
    module = make(WAYS[way])
    steps = trace(module, {}, X)
    steps.backward(2 * X)
    assert [step.path for step in steps.steps] == ["(1) y", "(2) z", "(2') y", "(1') z"]
    expected = [X, X + 2, 2 * X, 2 * X + 2]
    for step, value in zip(steps.steps, expected, strict=True):
        np.testing.assert_allclose(step.value, value, rtol=1e-12, err_msg=step.path)


@pytest.mark.parametrize("key", ["cbam", "residual"])
def test_large_steps_are_what_definitions_make_of_them(key):
    module = npattn.CATALOGUE[key].example()
    params, inputs = generic_values(module, batch=2, height=48, width=48, dtype=np.float32)

    def values():
        steps = trace(module, params, *inputs.values())
        steps.backward(steps.run.output)
        return [(step.path, step.value) for step in steps.steps]

    found = values()
    with npattn.definitions():
        expected = values()
    assert max(np.size(value) for _, value in found) >= 2**17
    for (path, value), (there, right) in zip(found, expected, strict=True):
        assert path == there
        np.testing.assert_allclose(value, right, rtol=1e-3, atol=1e-4 * np.abs(right).max(), err_msg=path)


@for_each("batch, size", [(2, 8), (8, 32)])
@pytest.mark.parametrize("key", npattn.CATALOGUE)
def test_steps_of_systems_that_write_nowhere_are_what_copies_would_be_whoever_writes_to_what_is_his(key, batch, size):
    """What is given and returned is the caller's, and no step."""
    steps, given, returned = there_and_back(key, batch, size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(traces, "writes_nowhere", lambda module: False)
        copied = there_and_back(key, batch, size)[0]
    for array in returned:
        np.add(array, 1, out=array)
    for array in given:
        np.add(array, 1, out=array, casting="unsafe")
    for step, other in zip(steps.steps, copied.steps, strict=True):
        np.testing.assert_array_equal(step.value, other.value, err_msg=step.path)


def there_and_back(key, batch, size):
    """Trace a system on a map of its own; return the trace, the arrays that it was given, and what it returned."""
    module = npattn.CATALOGUE[key].example()
    params, inputs = generic_values(module, batch=batch, height=size, width=size, dtype=np.float32)
    steps = trace(module, params, *inputs.values())
    dy = copy.deepcopy(steps.run.output)
    dx, grads = steps.backward(dy)
    run = steps.run
    returned = (*as_tuple(dx), *grads.values(), *as_tuple(run.output), *run.attention.values(), *run.buffers.values())
    return steps, [*params.values(), *inputs.values(), *as_tuple(dy)], [a for a in returned if a is not None]


def test_a_map_is_no_copy_where_nothing_can_write_to_it(monkeypatch):
    copy_of = copies.copy_of

    def copy_small(array):
        assert array.size < LARGE.size, "copied a map"
        return copy_of(array)

    monkeypatch.setattr(copies, "copy_of", copy_small)
    module = npattn.EfficientChannelAttention(64)
    steps = trace(module, module.init(), LARGE)
    assert not steps["(4) y"].value.flags.writeable


def test_a_system_of_the_users_own_in_one_of_ours_is_not_taken_to_write_nowhere(make):
    assert copies.writes_nowhere(npattn.Residual(npattn.CBAM(channels=16)))
    module = npattn.Residual(make(WAYS["in place"]))
    assert not copies.writes_nowhere(module)
    steps = trace(module, {}, X)
    written, after = (step.value for step in steps.steps if step.parts == ("inner",))
    np.testing.assert_array_equal(after, written + 2)


def test_a_primitive_that_is_replaced_may_write():
    def relu_in_place(primitive, arguments, options):
        if primitive is not npattn.ops.relu:
            return NotImplemented
        np.maximum(arguments[0], 0, out=arguments[0])
        return arguments[0], lambda dy: dy * (arguments[0] > 0)

    module = npattn.SqueezeExcitation.example()
    params, inputs = generic_values(module)
    expected = trace(module, params, inputs["x"])["(2) h"].value
    with replacing(relu_in_place):
        np.testing.assert_array_equal(trace(module, params, inputs["x"])["(2) h"].value, expected)
    assert (expected < 0).any()


@pytest.mark.parametrize("key", ["eca", "danet", "residual", "sdpa"])
def test_a_trace_goes_when_nobody_holds_it(key):
    module = npattn.CATALOGUE[key].example()
    params, inputs = generic_values(module)
    gc.disable()  # which would find it all the same, but late: large copies would pile up until then
    try:
        steps = trace(module, params, *inputs.values())
        steps.backward(steps.run.output)
        arrays = [weakref.ref(step.value) for step in steps.steps if isinstance(step.value, np.ndarray)]
        del steps
        assert len(arrays) > 5
        assert [array() for array in arrays if array() is not None] == []
    finally:
        gc.enable()
