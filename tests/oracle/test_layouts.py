"""Layouts, and kernels that ignore them: each of these reads memory otherwise than its array says."""

import functools
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npattn
from npattn import oracle
from npattn.oracle import golden, measurement
from npattn.oracle.budgets import named_results
from npattn.oracle.layouts import LAYOUTS, constant_axes, lay_out
from npattn.oracle.recipes import make
from tests.naming import for_each

OTHERS = [layout for layout in LAYOUTS if layout != "contiguous"]
every_layout = pytest.mark.parametrize("layout", LAYOUTS)
every_other_layout = pytest.mark.parametrize("layout", OTHERS)
shapes = st.lists(st.integers(0, 4), max_size=5).map(tuple)
LIBRARIES = ["numpy", "torch"]


def converter(library, dtype="float32", **options):
    """A function that makes a library's array of a NumPy array."""
    if library == "numpy":
        return getattr(np, dtype)
    torch = pytest.importorskip("torch")
    return lambda a: torch.tensor(a, dtype=getattr(torch, dtype), **options)


def numbers(shape):
    return np.arange(1.0, 1 + math.prod(shape), dtype=np.float32).reshape(shape)


def strides_of(a):
    """In elements."""
    return tuple(s // a.itemsize for s in a.strides) if isinstance(a, np.ndarray) else a.stride()


def memory_of(a):
    """All elements of the memory that an array is a view of, in order, and where the array starts."""
    if not isinstance(a, np.ndarray):
        storage = a.detach().new_empty(0).set_(a.untyped_storage())
        return storage.float().numpy().astype(np.float64), a.storage_offset()
    owner = a
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    start = (a.__array_interface__["data"][0] - owner.__array_interface__["data"][0]) // a.itemsize
    return owner.ravel(order="K").astype(np.float64), start


def row_major(shape, last=1):
    """Strides of a contiguous array, whose elements lie so far apart."""
    return tuple(last * math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


MISREADINGS = {
    "as if it were contiguous": lambda shape, true, start: (row_major(shape), start),
    "rows by the last axis's stride": lambda shape, true, start: (row_major(shape, true[-1]), start),
    "images by their stride, each as if contiguous": lambda shape, true, start: (
        (true[0], *row_major(shape)[1:]),
        start,
    ),
    "positions by their strides, channels as if without gaps": lambda shape, true, start: (
        (true[0], shape[2] * true[2], *true[2:]),
        start,
    ),
    "as if the last axis ran fastest": lambda shape, true, start: ((*true[:-1], 1), start),
    "from the beginning of the memory": lambda shape, true, start: (true, 0),
}
"""Strides and start that kernels read by: of the shape and the true ones."""


def read(a, misreading):
    """What a kernel reads; beyond the memory, NaN."""
    memory, start = memory_of(a)
    shape = tuple(a.shape)
    strides, start = misreading(shape, strides_of(a), start)
    where = start + sum(s * i for s, i in zip(strides, np.indices(shape), strict=True))
    return np.append(memory, np.nan)[np.minimum(where, memory.size)]


@functools.cache
def layout_cases(key="eca"):
    return [recipe.make() for recipe in oracle.cases(key, ["float32"], kinds=["layouts"])]


@given(shapes, st.sampled_from(list(LAYOUTS)), st.sampled_from([np.float32, np.float64, np.float16]))
def test_values_shape_and_dtype_stay_whatever_the_layout(shape, layout, dtype):
    values = numbers(shape).astype(np.float64)
    laid = lay_out(values, layout, dtype)
    assert laid.dtype == dtype
    np.testing.assert_array_equal(laid, values.astype(dtype))
    again = lay_out(laid, "contiguous", np.asarray)
    assert not np.shares_memory(laid, again)
    np.testing.assert_array_equal(again, values.astype(dtype))


@pytest.mark.parametrize("library", LIBRARIES)
def test_each_layout_is_what_it_is_called(library):
    shape = (2, 3, 4, 5)
    values = numbers(shape)
    laid = {layout: lay_out(values, layout, converter(library)) for layout in LAYOUTS}
    assert strides_of(laid["contiguous"]) == (60, 20, 5, 1)
    assert strides_of(laid["transposed"]) == (1, 2, 6, 24)
    assert strides_of(laid["channels-last"]) == (60, 1, 15, 3)
    assert strides_of(laid["sliced"]) == (200, 50, 10, 2)
    assert memory_of(laid["sliced"])[1] > 0
    assert np.isnan(memory_of(laid["sliced"])[0]).sum() == 3 * 4 * 5 * 10 - 120
    assert strides_of(laid["broadcast"]) == (60, 20, 5, 1)
    for array in laid.values():
        np.testing.assert_array_equal(np.asarray(array), values)


@pytest.mark.parametrize("library", LIBRARIES)
@given(st.sets(st.integers(0, 3)))
def test_what_does_not_change_along_an_axis_is_broadcast_with_stride_0(library, axes):
    values = np.array(numbers((2, 3, 4, 5)))
    for axis in axes:
        values[:] = values.take([0], axis)
    laid = lay_out(values, "broadcast", converter(library))
    assert [stride == 0 for stride in strides_of(laid)] == [axis in axes for axis in range(4)] == constant_axes(values)
    np.testing.assert_array_equal(np.asarray(laid), values)


def test_channels_last_is_torchs_memory_format():
    torch = pytest.importorskip("torch")
    laid = lay_out(numbers((2, 3, 4, 5)), "channels-last", torch.from_numpy)
    assert laid.is_contiguous(memory_format=torch.channels_last)
    assert not laid.is_contiguous()


@every_layout
def test_torch_tensors_that_require_a_gradient_are_leaves(layout):
    torch = pytest.importorskip("torch")
    laid = lay_out(np.ones((2, 3)), layout, converter("torch", requires_grad=True))
    assert laid.is_leaf
    (laid * torch.arange(3.0)).sum().backward()
    np.testing.assert_array_equal(laid.grad, [[0, 1, 2], [0, 1, 2]])


def test_a_library_without_strides_is_given_the_values():
    class Array:
        def __init__(self, a):
            self.a = a

    laid = lay_out(np.ones((2, 3)), "broadcast", Array)
    np.testing.assert_array_equal(laid.a, np.ones((2, 3)))


@every_other_layout
@pytest.mark.parametrize("key", ["se", "hard", "pcm"])
def test_a_case_hands_over_what_its_budgets_were_made_for(layout, key):
    (recipe,) = [r for r in oracle.cases(key, ["bfloat16"], kinds=["layouts"]) if r.layout == layout]
    case = recipe.make()
    assert case.layout == layout
    assert f", {layout}, " in repr(case)
    for convert in (np.asarray, np.float64):
        found = named_results(case.module, case.arrays(convert))
        case.assert_matches(found, require="all")
    double = case.arrays(np.float64)
    assert {not any(dy.strides) for dy in double.upstream.values()} == {layout == "broadcast"}
    for mine, handed in [(case.inputs, double.inputs), (case.upstream, double.upstream), (case.params, double.params)]:
        assert mine.keys() == handed.keys()
        for name, a in handed.items():
            np.testing.assert_array_equal(a, mine[name])
            assert strides_of(a) == strides_of(mine[name])


@for_each("key", npattn.CATALOGUE)
def test_in_every_system_some_input_and_every_upstream_gradient_is_laid_out_anew(key, monkeypatch):
    laid = []
    monkeypatch.setattr(measurement, "observe", lambda module, given, *_, **__: laid.append(given) or 1 / 0)
    for recipe in oracle.cases(key, ["float16"], kinds=["layouts"]):
        with pytest.raises(ZeroDivisionError):
            make.__wrapped__(recipe)
        inputs, upstream = (
            [lay_out(a, recipe.layout, np.asarray) for a in arrays.values()]
            for arrays in (laid[-1].inputs, laid[-1].upstream)
        )
        assert any(not a.flags.c_contiguous for a in inputs), recipe
        flat = 2 if recipe.layout == "channels-last" else 0  # axes of what has no positions
        assert all(not a.flags.c_contiguous for a in upstream if a.ndim > flat), recipe
        if recipe.layout == "broadcast":
            assert all(a.strides[0] == 0 for a in inputs)
            assert all(not any(a.strides) and (a == 1).all() for a in upstream)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("group", ["inputs", "upstream"])
@pytest.mark.parametrize("misreading", MISREADINGS)
def test_a_kernel_that_reads_memory_otherwise_than_its_array_says_is_caught(library, group, misreading):
    caught = []
    for case in layout_cases():
        given = case.arrays(converter(library))
        right = case.arrays(np.float32)
        misread = {
            name: read(a, MISREADINGS[misreading]).astype(np.float32) for name, a in getattr(given, group).items()
        }
        with np.errstate(invalid="ignore"):
            found = named_results(case.module, right._replace(**{group: misread}))
        caught += [case.layout] if not case.compare(found).passed else []
        case.assert_matches(named_results(case.module, right))
    assert caught
    if misreading == "as if it were contiguous":
        assert caught == OTHERS


def test_a_kernel_that_reads_memory_as_if_contiguous_passes_where_it_is():
    case = golden(npattn.EfficientChannelAttention(8), batch=2, height=4, width=5, dtype="float32")
    params, inputs, upstream = case.arrays(np.float32)
    inputs, upstream = (
        {name: read(a, MISREADINGS["as if it were contiguous"]).astype(np.float32) for name, a in arrays.items()}
        for arrays in (inputs, upstream)
    )
    case.assert_matches(named_results(case.module, type(case.arrays())(params, inputs, upstream)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_torch_passes_in_every_layout(dtype):
    torch = pytest.importorskip("torch")
    for recipe in oracle.cases("eca", [dtype], kinds=["ones", "layouts", "empty"]):
        case = recipe.make()
        params, inputs, upstream = case.arrays(converter("torch", dtype, requires_grad=True))
        (x,), (w,), (dy,) = inputs.values(), params.values(), upstream.values()
        gate = torch.conv1d(x.mean((2, 3))[:, None], w, padding=w.shape[2] // 2).sigmoid()
        y = x * gate[:, 0, :, None, None]
        y.backward(dy)
        case.assert_matches({"output": y, "x.grad": x.grad, "conv.weight.grad": w.grad}, require="all")


def test_what_is_handed_over_is_the_kernels_to_overwrite():
    case = golden(npattn.EfficientChannelAttention(4), height=2, width=3)
    before = case.inputs["x"].copy()
    case.arrays().inputs["x"][:] = 0
    np.testing.assert_array_equal(case.inputs["x"], before)


def test_what_cannot_convert_is_refused():
    case = golden(npattn.EfficientChannelAttention(4), height=2, width=3)
    with pytest.raises(TypeError, match=r"arrays: convert is a str; expected a function of a NumPy array"):
        case.arrays("torch")


@for_each(
    ("convert", "error", "told"),
    [
        (lambda a: a.tolist(), TypeError, "makes a list of a NumPy array; expected an array or tensor"),
        (lambda a: a.tobytes(), TypeError, "makes a bytes of a NumPy array; expected an array or tensor"),
        (lambda a: None, TypeError, "makes a NoneType of a NumPy array; expected an array or tensor"),
        (lambda a: a.ravel(), ValueError, "makes an array of shape ("),
    ],
)
@for_each("layout", ["transposed", "sliced", "channels-last"])
def test_what_can_not_be_laid_out_is_refused(layout, convert, error, told):
    (case,) = [case for case in layout_cases() if case.layout == layout]
    with pytest.raises(error, match=f"^convert {re.escape(told)}") as caught:
        case.arrays(convert)
    assert f"{layout!r}" in str(caught.value)
