import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from npattn.fast.blocks import (
    MIN_BLOCK_MULTIPLICATIONS,
    NUM_BLOCKS,
    are_machine_floats,
    blocks,
    blocks_of_product,
    broadcast_block,
    cut_axis,
    is_large,
)
from tests.naming import for_each
from tests.ops.primitives import normal, patched
from tests.strategies import sizes

shapes = st.lists(sizes, min_size=1, max_size=4).map(tuple)


class Other(np.ndarray):
    """Another kind of array."""


@settings(max_examples=20)
@given(shapes, st.integers(1, 200), st.data())
def test_blocks_cover_every_element_once_and_are_no_larger_than_asked(shape, size, data):
    axis = data.draw(st.integers(0, len(shape) - 1))
    visits = np.zeros(shape)
    indivisible = visits[:1].size // (shape[axis] if axis else 1)
    asked = min(size, visits.size // NUM_BLOCKS)
    with patched("MIN_THREADED_SIZE", 1):
        found = blocks(visits, axis, size)
    for block in found:
        assert len(block) == axis + 1
        assert 0 < visits[block].size <= max(asked, indivisible)
        assert all(part == slice(None) for part in block[1:axis])
        visits[block] += 1
    np.testing.assert_array_equal(visits, 1)
    assert 2 * visits[found[0]].size > asked  # and not needlessly small


def test_a_map_that_is_not_worth_two_threads_is_one_block():
    sizes = [2**20 - 1, 2**20]
    assert [len(blocks(np.empty((n, 1), np.float32), 1)) == 1 for n in sizes] == [True, False]
    assert blocks(np.empty((4, 5)), 1, 2) == [(slice(None), slice(None))]


@settings(max_examples=20)
@given(shapes, st.data())
def test_a_block_of_a_map_meets_the_same_block_of_what_is_broadcast_to_it(shape, data):
    x = np.arange(float(np.prod(shape))).reshape(shape)
    kept = data.draw(st.tuples(*(st.booleans() for _ in shape)))
    a = normal(*(n if keep else 1 for n, keep in zip(shape, kept, strict=True)))
    axis = data.draw(st.integers(0, len(shape) - 1))
    with patched("MIN_THREADED_SIZE", 1):
        cut = blocks(x, axis, 3)
    for block in cut:
        some = a[broadcast_block(a, block)]
        np.testing.assert_array_equal(np.broadcast_to(some, x[block].shape), np.broadcast_to(a, shape)[block])


@pytest.mark.parametrize(("size", "expected"), [(2**17 - 1, False), (2**17, True), (2**17 + 1, True)])
def test_a_map_of_the_machines_floats_is_large_from_2_to_the_17_on(size, expected):
    x = np.ones(size)
    assert is_large(x) is expected
    assert is_large(x, x[:1]) is expected
    assert not is_large(x[:1], x)
    for other in (x.view(Other), x.astype(np.float32), x.astype(complex)):
        assert not is_large(x, other)
        assert not is_large(other, x)


@for_each("dtype", ["?", "i4", "f2", "f4", "f8", "g", "c8", "c16", "O"])
def test_machine_floats_are_float32_and_float64(dtype):
    a = np.ones(3).astype(dtype)
    assert are_machine_floats(a) is (dtype in {"f4", "f8"})
    assert are_machine_floats(a, a) is (dtype in {"f4", "f8"})
    assert not are_machine_floats(a, a.view(Other))
    assert not are_machine_floats(a, 1.0)


@settings(max_examples=20)
@given(st.integers(1, 60), st.integers(0, 70))
def test_an_axis_is_cut_once_through_into_parts_of_nearly_one_length(length, count):
    found = cut_axis(length, count)
    assert [i for part in found for i in range(part.start, part.stop)] == list(range(length))
    assert len(found) <= max(1, count)
    assert len({part.stop - part.start for part in found[:-1]}) <= 1
    assert found[-1].stop - found[-1].start <= found[0].stop


@given(st.lists(st.integers(1, 40), max_size=2), *(st.integers(1, 5000) for _ in range(3)))
@example([7, 7], 7, 816, 60)
@example([5, 5], 24, 467, 60)
@example([5], 32, 1748, 60)
def test_blocks_of_a_product_cover_it_once_and_are_worth_a_thread(batch, rows, inner, columns):
    visits = np.zeros((*batch, min(rows, 60), min(columns, 60)), np.uint8)
    found = blocks_of_product(batch, visits.shape[-2], inner, visits.shape[-1])
    for at, some_rows, some_columns in found:
        visits[at][..., some_rows, some_columns] += 1
    np.testing.assert_array_equal(visits, 1)
    assert len(found) * MIN_BLOCK_MULTIPLICATIONS <= max(4 * visits.size * inner, MIN_BLOCK_MULTIPLICATIONS)


@pytest.mark.parametrize("cores", [1, 2, 3, 8])
@for_each("batch", [(), (1,), (3,), (7,), (2, 3)])
@for_each("rows, columns", [(512, 512), (64, 3136), (3136, 64), (256, 784)])
def test_large_products_have_as_much_work_for_every_core(cores, batch, rows, columns):
    with patched("MAX_PRODUCT_BLOCKS", cores):
        found = blocks_of_product(batch, rows, 1024, columns)
    visits = np.zeros((*batch, rows, columns), np.uint8)
    parts = [visits[at][..., i, j].size for at, i, j in found]
    assert len(found) >= cores
    assert len(found) % cores == 0 or len(found) >= 4 * cores or 8 % cores
    assert max(parts) <= 2 * min(parts)


def test_a_cut_reads_few_rows_and_columns_anew():
    for rows, columns in ((512, 512), (64, 3136), (3136, 64)):
        with patched("MAX_PRODUCT_BLOCKS", 8):
            found = blocks_of_product((), rows, 1024, columns)
        read = sum((i.stop - i.start) + (j.stop - j.start) for _, i, j in found)
        fewest = min(p * columns + -(-8 // p) * rows for p in (1, 2, 4, 8))
        assert read <= 1.1 * fewest
