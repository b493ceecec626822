import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import ops
from npattn.ops import attention, sweeping
from tests.ops.primitives import definitions, in_blocks, normal, patched, torch_gradients, ulps, worst_error
from tests.strategies import seeds, sizes

leads = st.sampled_from([(), (1,), (3,), (0,), (2, 3), (1, 2, 2)])
tilings = st.sampled_from([(1, 1), (1, 2), (6, 2), (20, 3), (60, 1), (2**20, 256)])


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles that none of the tests' sizes fill evenly."""
    monkeypatch.setattr(attention, "LOGITS", 12)
    monkeypatch.setattr(attention, "QUERIES", 2)


def arrays(lead=(), sizes=(3, 4, 5, 6), seed=0):
    """Queries, keys, values, and a gradient of the output."""
    d, e, queries, keys = sizes
    random = np.random.RandomState(seed)
    shapes = (d, queries), (d, keys), (e, keys), (e, queries)
    return [random.standard_normal((*lead, *shape)) for shape in shapes]


def whole(q, k, v, scale=1.0):
    """Attention as it is written, with all weights at once."""
    z = scale * np.einsum("...dm,...dn->...mn", q, k)
    s = np.exp(z - z.max(axis=-1, keepdims=True))
    s /= s.sum(axis=-1, keepdims=True)
    return s, np.einsum("...mn,...en->...em", s, v)


@given(leads, st.tuples(sizes, sizes, sizes, sizes), st.sampled_from([1.0, 0.25, -2.0]), tilings, seeds)
@settings(max_examples=100)
def test_values_and_gradients_agree_with_pytorch_however_the_work_is_cut(lead, shape, scale, tiling, seed):
    torch = pytest.importorskip("torch")
    *qkv, do = arrays(lead, shape, seed)

    def published(q, k, v):
        weights = torch.softmax(scale * (q.transpose(-1, -2) @ k), dim=-1)
        return v @ weights.transpose(-1, -2)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "LOGITS", tiling[0])
        patch.setattr(attention, "QUERIES", tiling[1])
        o, backward = ops.dot_product_attention(*qkv, scale)
        gradients = backward(do)
    expected, theirs = torch_gradients(published, do, *qkv)
    assert o.shape == do.shape
    np.testing.assert_allclose(o, expected, rtol=1e-12, atol=1e-12)
    for ours, reference in zip(gradients, theirs, strict=True):
        assert ours.shape == reference.shape
        np.testing.assert_allclose(ours, reference, rtol=1e-10, atol=1e-12 * np.abs(reference).max(initial=1))


@pytest.mark.parametrize("lead", [(), (2,), (2, 2)])
def test_gradients_agree_with_the_complex_step(small_tiles, lead):
    *qkv, _ = arrays(lead)
    assert worst_error(lambda *a: ops.dot_product_attention(*a, scale=0.7), *qkv) < 1e-12


@given(leads, st.integers(0, 20), st.integers(1, 20), tilings)
def test_tiles_cover_every_query_once(lead, queries, keys, tiling):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "LOGITS", tiling[0])
        patch.setattr(attention, "QUERIES", tiling[1])
        tiles, blocks = attention.cut(lead or (1,), queries, keys, in_blocks=False)
    # Backward makes the tiles of forward anew, one after the other: all keys each.
    for each in (tiles, [(at, some) for some, [(to, ats)] in blocks for at in ats if to == slice(0, keys)]):
        visits = np.zeros((*(lead or (1,)), queries))
        for at, some in each:
            visits[at][..., some] += 1
            assert visits[at][..., some].size * keys <= max(tiling[0], tiling[1] * keys)
        np.testing.assert_array_equal(visits, 1)


@pytest.mark.parametrize("size", [1e4, -1e4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_products_neither_overflow_nor_underflow(size, dtype):
    q, k, v = np.array([[size, 1.0]], dtype), np.array([[1.0, 0.5, 0.25]], dtype), np.array([[1.0, 2.0, 4.0]], dtype)
    o, backward = ops.dot_product_attention(q, k, v)
    _, expected = whole(*(a.astype(np.longdouble) for a in (q, k, v)))
    np.testing.assert_allclose(o, expected, rtol=10 * np.finfo(dtype).eps)
    assert o[0, 0] == (1 if size > 0 else 4)
    assert all(np.isfinite(gradient).all() for gradient in backward(np.ones_like(o)))


@given(seeds, st.floats(-1e4, 1e4))
def test_a_number_added_to_all_keys_changes_nothing(seed, shift):
    q, k, v, do = arrays(seed=seed)
    o, backward = ops.dot_product_attention(q, k, v)
    moved, _ = ops.dot_product_attention(q, k + shift * np.ones((3, 1)), v)
    np.testing.assert_allclose(moved, o, atol=1e-13 * max(10, abs(shift)))
    np.testing.assert_allclose(backward(do)[1].sum(axis=-1), 0, atol=1e-12)


def test_equal_keys_give_every_query_the_plain_average():
    q, k, v, _ = arrays()
    o, _ = ops.dot_product_attention(q, np.zeros_like(k), v)
    np.testing.assert_allclose(o, np.broadcast_to(v.mean(axis=-1, keepdims=True), o.shape), rtol=1e-14)


def test_one_key_is_copied_to_every_query_and_sends_no_gradient_to_the_logits():
    q, k, v, do = arrays(sizes=(3, 4, 5, 1))
    o, backward = ops.dot_product_attention(q, k, v)
    np.testing.assert_allclose(o, np.broadcast_to(v, o.shape), rtol=1e-15)
    dq, dk, dv = backward(do)
    np.testing.assert_allclose(dq, 0, atol=1e-14)
    np.testing.assert_allclose(dk, 0, atol=1e-14)
    np.testing.assert_allclose(dv, do.sum(axis=-1, keepdims=True), rtol=1e-13)


def test_renaming_keys_with_their_values_changes_nothing_and_queries_go_their_own_ways(small_tiles):
    q, k, v, do = arrays()
    o, backward = ops.dot_product_attention(q, k, v)
    there = [3, 0, 5, 1, 4, 2]
    renamed, _ = ops.dot_product_attention(q, k[:, there], v[:, there])
    np.testing.assert_allclose(renamed, o, rtol=1e-13)
    alone, back_alone = ops.dot_product_attention(q[:, 2:3], k, v)
    np.testing.assert_allclose(alone, o[:, 2:3], rtol=1e-13)
    np.testing.assert_allclose(back_alone(do[:, 2:3])[0], backward(do)[0][:, 2:3], rtol=1e-11)


@pytest.mark.parametrize("dtype", [np.float32, np.longdouble, np.complex128])
def test_other_numbers_keep_their_dtype_and_agree_with_float64(small_tiles, dtype):
    *qkv, do = arrays((2,))
    expected, back = ops.dot_product_attention(*qkv, scale=0.5)
    o, backward = ops.dot_product_attention(*(a.astype(dtype) for a in qkv), scale=0.5)
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    for found, reference in zip((o, *backward(do.astype(dtype))), (expected, *back(do)), strict=True):
        assert found.dtype == dtype
        np.testing.assert_allclose(found, reference, rtol=tolerance, atol=tolerance)


def test_runs_on_a_device_array_and_gives_the_same_bits(small_tiles):
    pytest.importorskip("cupy")
    from tests.device_array import DeviceArray

    *qkv, do = arrays((2, 2))
    o, backward = ops.dot_product_attention(*qkv, scale=0.5)
    found, back = ops.dot_product_attention(*map(DeviceArray, qkv), scale=0.5)
    for ours, host in zip((found, *back(DeviceArray(do))), (o, *backward(do)), strict=True):
        np.testing.assert_array_equal(ours.get(), host)


@pytest.mark.parametrize("which", range(3))
def test_nan_reaches_the_queries_that_see_it(small_tiles, which):
    qkv = arrays()[:3]
    qkv[which][1, 2] = np.nan
    o, _ = ops.dot_product_attention(*qkv)
    seen = np.isnan(o)
    expected = np.zeros_like(seen)
    # In a query it spoils that query; in a key or value every query, of a value in one channel.
    expected[(slice(None), 2) if which == 0 else slice(None) if which == 1 else 1] = True
    np.testing.assert_array_equal(seen, expected)


def test_inputs_of_any_layout_are_read_as_they_are_and_never_written_to(small_tiles):
    mixed = normal(2, 9, 7)
    mixed.flags.writeable = False
    q, k, v = (mixed[:, i::3][:, None] for i in range(3))
    do = np.broadcast_to(np.float64(1), (2, 1, 3, 7))
    o, backward = ops.dot_product_attention(q, k, v)
    expected, back = ops.dot_product_attention(*(np.ascontiguousarray(a) for a in (q, k, v)))
    for ours, theirs in zip((o, *backward(do)), (expected, *back(do.copy())), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)
        assert ours.flags.writeable


def test_memory_grows_as_the_positions_and_not_as_their_square():
    def peak(positions):
        qkv = [a.astype(np.float32) for a in arrays((1,), (2, 16, positions, positions))[:3]]
        tracemalloc.start()
        o, backward = ops.dot_product_attention(*qkv)
        backward(o)
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    small, large = peak(2048), peak(8192)
    assert large < 4.5 * small  # 16 times, if the weights were held
    assert large < 8192**2 * 4 / 8


# In parts

part_tilings = st.sampled_from(
    [(1, 1, (1, 1)), (4, 2, (3, 2)), (12, 2, (2, 5)), (30, 5, (4, 4)), (2**19, 64, (512, 768)), (6, 64, (2, 20))]
)


def run(arrays, do, scale=1.0):
    o, backward = ops.dot_product_attention(*arrays, scale)
    return [o, *backward(do)]


@given(leads, st.tuples(*[st.integers(1, 12)] * 4), part_tilings, st.sampled_from([1, 2, 3, 8]), seeds)
def test_attention_in_parts_is_that_at_once(lead, shape, tiling, count, seed):
    *qkv, do = arrays(lead, shape, seed)
    with definitions():
        expected = run(qkv, do, 0.5)
    with in_blocks(count, tiling):
        found = run(qkv, do, 0.5)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


@given(st.sampled_from([(), (3,), (2, 2)]), st.tuples(*[st.integers(1, 40)] * 4), part_tilings, seeds)
def test_single_precision_attention_in_parts_is_within_16_ulps_of_the_largest_at_once(lead, shape, tiling, seed):
    *qkv, do = (a.astype(np.float32) for a in arrays(lead, shape, seed))
    scale = shape[0] ** -0.5
    with definitions():
        o, *expected = run(qkv, do, scale)
    with in_blocks(tiles=tiling):
        found, *gradients = run(qkv, do, scale)
    assert ulps(found, o) <= 16
    # A gradient of the logits is a difference, and may cancel: it is judged by what is subtracted.
    sizes_of_terms = [scale * np.abs(do).max() * np.abs(qkv[2]).max() * np.abs(qkv[i]).max() for i in (1, 0)]
    terms = [size * number for size, number in zip(sizes_of_terms, (1, shape[2]), strict=True)] + [np.abs(do).max()]
    for ours, theirs, size in zip(gradients, expected, terms, strict=True):
        assert ours.dtype == np.float32
        assert np.abs(ours - theirs).max() <= 16 * np.finfo(np.float32).eps * max(size, np.abs(theirs).max())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("lead", [(), (2,), (2, 2)])
def test_the_same_input_gives_the_same_bits_on_any_number_of_threads_and_every_time(dtype, lead):
    *qkv, do = (a.astype(dtype) for a in arrays(lead, (8, 6, 600, 700)))
    found = []
    for count in (1, 2, 3, 8, 8, 2):
        # One thread alone multiplies with whatever BLAS has, and threads() counts no more than that.
        with patched("num_threads", lambda count=count: count), sweeping.blas().limit(limits=count):
            found.append(run(qkv, do))
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            np.testing.assert_array_equal(one, other)


def size_of(at, lead):
    return np.empty(lead)[at].size


@given(leads.filter(lambda lead: 0 not in lead), st.integers(1, 40), st.integers(1, 40), part_tilings)
def test_parts_cover_every_query_and_every_key_once(lead, queries, keys, tiling):
    lead = lead or (1,)
    with in_blocks(tiles=tiling):
        tiles, blocks = attention.cut(lead, queries, keys, in_blocks=True)
    size = min(tiling[0], int(np.prod(lead)) * queries * keys // sweeping.PIECES)
    visits = np.zeros((*lead, queries))
    for at, some in tiles:
        visits[at][..., some] += 1
        logits = size_of(at, lead) * (some.stop - some.start) * keys
        assert logits <= max(size, max(tiling[1], size // keys) * keys)
    np.testing.assert_array_equal(visits, 1)
    seen = np.zeros(queries)
    for some, columns in blocks:
        seen[some] += 1
        assert some.stop - some.start <= tiling[2][0]
        touched = np.zeros((*lead, keys))  # dk and dv, while the tiles of a block are made at the same time
        for to, ats in columns:
            assert to.stop - to.start <= tiling[2][1]
            for at in ats:
                touched[at][..., to] += 1
                logits = (some.stop - some.start) * (to.stop - to.start)
                assert size_of(at, lead) * logits <= max(size, logits)
        np.testing.assert_array_equal(touched, 1)
    np.testing.assert_array_equal(seen, 1)


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
def test_tiles_that_are_made_at_the_same_time_write_to_different_places(lead):
    *qkv, do = arrays(lead, (3, 4, 11, 13))
    calls = []

    def watch(work, pieces, in_parts, products=False):
        assert in_parts
        assert products
        calls.append(pieces)
        for piece in reversed(pieces):  # in any order
            work(piece)

    with in_blocks(), patched("for_pieces", watch):
        found = run(qkv, do)
    with in_blocks():
        expected = run(qkv, do)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    tiles, *blocks = calls
    assert len(tiles) > 1
    assert len(blocks) > 1
    for block in blocks:
        assert len(block) > 1
        places = np.zeros((*(lead or (1,)), 13))
        written = {}
        for at, some, to, part in block:
            assert some == block[0][1]
            places[at][..., to] += 1
            written.setdefault(id(part), np.zeros(lead or (1,)))[at] += 1
        np.testing.assert_array_equal(places, 1)
        for visits in written.values():
            np.testing.assert_array_equal(visits, 1)


@given(st.integers(1, 3000), st.integers(1, 1000))
def test_stretches_cover_an_axis_once_in_nearly_equal_lengths(length, most):
    found = attention.stretches(length, most)
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
def test_an_axis_in_several_stretches_is_in_an_even_number(length, most, lengths):
    assert [some.stop - some.start for some in attention.stretches(length, most)] == lengths


@pytest.mark.parametrize(("queries", "expected"), [(2**9 - 1, False), (2**9, True)])
def test_attention_is_parted_where_it_is_large(queries, expected):
    seen = []
    with patched("for_pieces", lambda work, pieces, in_parts, products=False: seen.append(in_parts)):
        ops.dot_product_attention(*arrays((2, 2), (1, 1, queries, 2**6))[:3])
    assert seen == [expected]


@pytest.mark.parametrize("lead", [(), (2,)])
def test_no_queries_get_no_values_and_send_no_gradient(lead):
    q, k, v, do = arrays(lead, (3, 4, 0, 5))
    o, dq, dk, dv = run((q, k, v), do)
    assert o.shape == do.shape
    assert dq.shape == q.shape
    np.testing.assert_array_equal(dk, np.zeros_like(k))
    np.testing.assert_array_equal(dv, np.zeros_like(v))


@pytest.mark.parametrize("lead", [(), (2,), (2, 2)])
def test_gradients_in_parts_agree_with_pytorch(lead):
    torch = pytest.importorskip("torch")
    *qkv, do = arrays(lead, (3, 4, 9, 11))

    def published(q, k, v):
        return v @ torch.softmax(0.7 * (q.transpose(-1, -2) @ k), dim=-1).transpose(-1, -2)

    expected, theirs = torch_gradients(published, do, *qkv)
    with in_blocks():
        found = run(qkv, do, 0.7)
    for ours, reference in zip(found, [expected, *theirs], strict=True):
        np.testing.assert_allclose(ours, reference, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("cores_share", [True, False])
def test_many_channels_are_weighted_as_few_are(cores_share, monkeypatch):
    q, k, v, do = normal(2, 3, 5), normal(2, 3, 7, seed=1), normal(2, 4, 7, seed=2), normal(2, 4, 5, seed=3)
    monkeypatch.setattr(attention, "ENOUGH", 0 if cores_share else 10**9)
    found = []
    for narrow in (2, 3, 100):  # neither, queries alone, all
        monkeypatch.setattr(attention, "NARROW", narrow)
        o, backward = ops.dot_product_attention(q, k, v, scale=0.5)
        found.append((o, *backward(do)))
    s = np.exp(0.5 * q.swapaxes(1, 2) @ k)
    np.testing.assert_allclose(found[0][0], v @ (s / s.sum(axis=2, keepdims=True)).swapaxes(1, 2), rtol=1e-12)
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-13)
