import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from npattn import ops
from npattn.fast import attention
from npattn.fast.blas import multiplies_on_one_thread
from npattn.fast.blocks import NUM_BLOCKS
from npattn.ops.context import definitions
from tests.memory import peak_of_both
from tests.ops.primitives import in_blocks, normal, patched, way_taken
from tests.ops.test_attention import arrays, either_attention, leads, misread, positions_alone
from tests.strategies import seeds

tilings = st.sampled_from(
    [(1, 1, (1, 1)), (4, 2, (3, 2)), (12, 2, (2, 5)), (30, 5, (4, 4)), (2**19, 64, (512, 768)), (6, 64, (2, 20))]
)


def run(qkv, do, scale=1.0):
    o, backward = ops.dot_product_attention(*qkv, scale)
    return [o, *backward(do)]


@settings(max_examples=20)
@given(leads, st.tuples(*[st.integers(1, 12)] * 4), tilings, st.sampled_from([1, 3]), seeds)
def test_attention_in_blocks_is_the_definition_however_the_work_is_cut(lead, shape, tiling, count, seed):
    *qkv, do = arrays(lead, shape, seed)
    with definitions():
        expected = run(qkv, do, 0.5)
    with in_blocks(count, tiling):
        found = run(qkv, do, 0.5)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


@settings(max_examples=20)
@given(st.sampled_from([(), (3,), (2, 2)]), st.tuples(*[st.integers(1, 40)] * 4), tilings, seeds)
def test_single_precision_is_within_16_ulps_of_the_largest_by_definition(lead, shape, tiling, seed):
    *qkv, do = (a.astype(np.float32) for a in arrays(lead, shape, seed))
    scale = shape[0] ** -0.5
    with definitions():
        o, *expected = run(qkv, do, scale)
    with in_blocks(tiles=tiling):
        found, *gradients = run(qkv, do, scale)
    # Values may cancel in an average, and a gradient of the logits is a difference: both are judged by their terms.
    assert found.dtype == np.float32
    assert np.abs(found - o).max() <= 16 * np.finfo(np.float32).eps * np.abs(qkv[2]).max()
    sizes_of_terms = [scale * np.abs(do).max() * np.abs(qkv[2]).max() * np.abs(qkv[i]).max() for i in (1, 0)]
    terms = [size * number for size, number in zip(sizes_of_terms, (1, shape[2]), strict=True)] + [np.abs(do).max()]
    for ours, theirs, size in zip(gradients, expected, terms, strict=True):
        assert ours.dtype == np.float32
        assert np.abs(ours - theirs).max() <= 16 * np.finfo(np.float32).eps * max(size, np.abs(theirs).max())


@pytest.mark.skipif(not multiplies_on_one_thread(), reason="BLAS has no product on one thread")
def test_maps_of_real_size_give_the_same_bits_on_any_number_of_threads():
    *qkv, do = (a.astype(np.float32) for a in arrays((2,), (8, 6, 600, 700)))
    found = []
    for count in (1, 2, 8):
        # BLAS alone may compute with as many.
        with patched("num_threads", lambda count=count: count), threadpool_limits(count):
            found.append(run(qkv, do))
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            np.testing.assert_array_equal(one, other)


# Blocks


def size_of(at, lead):
    return np.empty(lead)[at].size


@settings(max_examples=20)
@given(leads.filter(lambda lead: 0 not in lead), st.integers(1, 40), st.integers(1, 40), tilings)
def test_blocks_cover_every_query_and_every_key_once(lead, queries, keys, tiling):
    lead = lead or (1,)
    with in_blocks(tiles=tiling):
        forward, backward = attention.blocks_of_attention(lead, queries, keys)
    total = int(np.prod(lead)) * queries * keys
    size, most = (min(tiling[0], total // count) for count in (NUM_BLOCKS, attention.NUM_BLOCKS_OF_SEVERAL))
    visits = np.zeros((*lead, queries))
    for at, m in forward:
        visits[at][..., m] += 1
        logits = size_of(at, lead) * (m.stop - m.start) * keys
        assert logits <= max(most, max(tiling[1], size // keys) * keys)
    np.testing.assert_array_equal(visits, 1)
    seen = np.zeros(queries)
    for m, columns in backward:
        seen[m] += 1
        assert m.stop - m.start <= tiling[2][0]
        touched = np.zeros((*lead, keys))  # dk and dv, while the blocks of some queries are made at the same time
        for n, ats in columns:
            assert n.stop - n.start <= tiling[2][1]
            for at in ats:
                touched[at][..., n] += 1
                logits = (m.stop - m.start) * (n.stop - n.start)
                assert size_of(at, lead) * logits <= max(most, logits)
        np.testing.assert_array_equal(touched, 1)
    np.testing.assert_array_equal(seen, 1)


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
def test_blocks_that_are_made_at_the_same_time_write_to_different_places(lead):
    *qkv, do = arrays(lead, (3, 4, 11, 13))
    calls = []

    def watch(work, blocks, products=False):
        assert products
        calls.append(blocks)
        for block in reversed(blocks):  # in any order
            work(block)

    with in_blocks(), patched("parallel_for", watch):
        found = run(qkv, do)
    with in_blocks():
        expected = run(qkv, do)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    forward, *backward = calls
    assert len(forward) > 1
    assert len(backward) > 1
    for blocks in backward:
        assert len(blocks) > 1
        places = np.zeros((*(lead or (1,)), 13))
        written = {}
        for at, m, n, part in blocks:
            assert m == blocks[0][1]
            places[at][..., n] += 1
            written.setdefault(id(part), np.zeros(lead or (1,)))[at] += 1
        np.testing.assert_array_equal(places, 1)
        for visits in written.values():
            np.testing.assert_array_equal(visits, 1)


@settings(max_examples=20)
@given(st.integers(1, 3000), st.integers(1, 1000))
def test_an_axis_is_cut_once_through_in_nearly_equal_lengths(length, most):
    found = attention.cut_evenly(length, most)
    assert [i for some in found for i in range(some.start, some.stop)] == list(range(length))
    lengths = [some.stop - some.start for some in found]
    assert all(0 < n <= most for n in lengths)
    assert len(set(lengths[:-1])) <= 1
    assert lengths[-1] <= lengths[0]
    if length > 2 * most:  # not needlessly many
        assert len(found) <= -(-length // most) + 1
    if length <= most:
        assert len(found) == 1


@pytest.mark.parametrize(("length", "most", "lengths"), [(1000, 400, [250] * 4), (900, 500, [450] * 2), (7, 7, [7])])
def test_an_axis_in_several_parts_is_in_an_even_number(length, most, lengths):
    assert [some.stop - some.start for some in attention.cut_evenly(length, most)] == lengths


@pytest.mark.parametrize(("queries", "large"), [(2**9 - 1, False), (2**9, True), (2**9 + 1, True)])
@pytest.mark.parametrize("lead", [(4,), (2, 2)])
def test_blocks_are_made_from_2_to_the_17_logits_on(queries, large, lead):
    *qkv, _ = arrays(lead, (1, 1, queries, 2**6))
    assert (way_taken(ops.dot_product_attention, *qkv, scale=0.5) == "attention_in_blocks") is large


# What the numbers are


@pytest.mark.parametrize("safe", [0.0, np.inf])
def test_a_maximum_is_taken_off_or_not_with_the_same_outcome(safe):
    *qkv, do = arrays((2,), (3, 4, 9, 11))
    with definitions():
        expected = run(qkv, do)
    with in_blocks(), patched("SAFE_LOGIT", safe):
        found = run(qkv, do)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("size", "safe"), [(39.9, True), (40.1, False), (np.nan, False), (np.inf, False)])
def test_logits_are_safe_as_long_as_no_product_of_lengths_is_large(size, safe):
    q, k = np.array([[0.6, 0.0], [0.8, 1.0]]), np.array([[size, 0.0], [0.0, -1.0]])
    assert attention.are_safe(q, k) is safe
    assert attention.are_safe(k, q) is safe


@pytest.mark.parametrize("size", [50, 1e4, -1e4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_products_neither_overflow_nor_underflow(size, dtype):
    q, k, v = np.array([[size, 1.0]], dtype), np.array([[1.0, 0.5, 0.25]], dtype), np.array([[1.0, 2.0, 4.0]], dtype)
    with in_blocks():
        o, dq, dk, dv = run((q, k, v), np.ones((1, 2), dtype))
    expected, *gradients = run([a.astype(np.longdouble) for a in (q, k, v)], np.ones((1, 2), np.longdouble))
    np.testing.assert_allclose(o, expected, rtol=20 * np.finfo(dtype).eps)
    for ours, theirs in zip((dq, dk, dv), gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=20 * np.finfo(dtype).eps * np.abs(theirs).max(), rtol=1e-5)


@pytest.mark.parametrize("narrow", [2, 3, 100])  # neither, queries alone, all
def test_many_channels_are_weighted_as_few_are(narrow):
    q, k, v, do = normal(2, 3, 5), normal(2, 3, 7, seed=1), normal(2, 4, 7, seed=2), normal(2, 4, 5, seed=3)
    with definitions():
        expected = run((q, k, v), do, 0.5)
    with in_blocks(), patched("MAX_FEW_CHANNELS", narrow):
        found = run((q, k, v), do, 0.5)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("safe", [0, 1e9])
def test_weights_are_the_same_as_powers_of_2_and_of_e(quick, safe):
    q, k, v, do = normal(2, 3, 5), normal(2, 3, 7, seed=1), normal(2, 4, 7, seed=2), normal(2, 4, 5, seed=3)
    with definitions():
        expected = run((q, k, v), do, 0.5)
    with in_blocks(), patched("has_quick_powers_of_two", lambda: quick), patched("SAFE_LOGIT", safe):
        found = run((q, k, v), do, 0.5)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)


@either_attention
@misread
def test_what_the_definition_refuses_no_faster_way_takes(primitive, shapes, message):
    with in_blocks(), pytest.raises(ValueError) as caught:
        primitive(*map(np.ones, shapes))
    assert str(caught.value).startswith(f"{primitive.__name__}: {message}")


def test_memory_grows_as_the_positions_and_not_as_their_square():
    with patched("num_threads", lambda: 2):
        small, large = (peak_of_both(ops.dot_product_attention, *positions_alone(count)) for count in (1024, 4096))
    assert large < 4.5 * small  # 16 times, if the weights were held
    assert large < 4096**2 * 4 / 4
