import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import ops
from npattn.ops import attention
from tests.memory import peak_of_both
from tests.ops.primitives import normal, torch_gradients
from tests.strategies import seeds, sizes

leads = st.sampled_from([(), (1,), (3,), (0,), (2, 3), (1, 2, 2)])
block_lengths = st.sampled_from([1, 2, 3, 256])


def arrays(lead=(), sizes=(3, 4, 5, 6), seed=0):
    """Queries, keys, values, and a gradient of the output."""
    d, e, queries, keys = sizes
    random = np.random.RandomState(seed)
    shapes = (d, queries), (d, keys), (e, keys), (e, queries)
    return [random.standard_normal((*lead, *shape)) for shape in shapes]


def positions_alone(count, e=16):
    """Queries, keys and values of so many positions, in single precision."""
    return [a.astype(np.float32) for a in arrays((1,), (2, e, count, count))[:3]]


def whole(q, k, v, scale=1.0):
    """Attention as it is written, with all weights at once."""
    z = scale * np.einsum("...dm,...dn->...mn", q, k)
    s = np.exp(z - z.max(axis=-1, keepdims=True))
    s /= s.sum(axis=-1, keepdims=True)
    return s, np.einsum("...mn,...en->...em", s, v)


@settings(max_examples=20)
@given(
    leads,
    st.tuples(sizes, sizes, sizes, sizes),
    st.sampled_from([1.0, 0.25, -2.0]),
    st.sampled_from([1, 2, 3, 256]),
    seeds,
)
def test_values_and_gradients_agree_with_pytorch_however_the_work_is_cut(lead, shape, scale, queries, seed):
    torch = pytest.importorskip("torch")
    *qkv, do = arrays(lead, shape, seed)

    def published(q, k, v):
        weights = torch.softmax(scale * (q.transpose(-1, -2) @ k), dim=-1)
        return v @ weights.transpose(-1, -2)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "BLOCK_QUERIES", queries)
        o, backward = ops.dot_product_attention(*qkv, scale)
        gradients = backward(do)
    expected, theirs = torch_gradients(published, do, *qkv)
    assert o.shape == do.shape
    np.testing.assert_allclose(o, expected, rtol=1e-12, atol=1e-12)
    for ours, reference in zip(gradients, theirs, strict=True):
        assert ours.shape == reference.shape
        np.testing.assert_allclose(ours, reference, rtol=1e-10, atol=1e-12 * np.abs(reference).max(initial=1))


@pytest.mark.parametrize("size", [1e4, -1e4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_products_neither_overflow_nor_underflow(size, dtype):
    q, k, v = np.array([[size, 1.0]], dtype), np.array([[1.0, 0.5, 0.25]], dtype), np.array([[1.0, 2.0, 4.0]], dtype)
    o, backward = ops.dot_product_attention(q, k, v)
    _, expected = whole(*(a.astype(np.longdouble) for a in (q, k, v)))
    np.testing.assert_allclose(o, expected, rtol=10 * np.finfo(dtype).eps)
    assert o[0, 0] == (1 if size > 0 else 4)
    assert all(np.isfinite(gradient).all() for gradient in backward(np.ones_like(o)))


@settings(max_examples=20)
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


def test_renaming_keys_with_their_values_changes_nothing_and_queries_go_their_own_ways(small_blocks):
    q, k, v, do = arrays()
    o, backward = ops.dot_product_attention(q, k, v)
    there = [3, 0, 5, 1, 4, 2]
    renamed, _ = ops.dot_product_attention(q, k[:, there], v[:, there])
    np.testing.assert_allclose(renamed, o, rtol=1e-13)
    alone, back_alone = ops.dot_product_attention(q[:, 2:3], k, v)
    np.testing.assert_allclose(alone, o[:, 2:3], rtol=1e-13)
    np.testing.assert_allclose(back_alone(do[:, 2:3])[0], backward(do)[0][:, 2:3], rtol=1e-11)


@pytest.mark.parametrize("dtype", [np.float32, np.longdouble, np.complex128])
def test_other_numbers_keep_their_dtype_and_agree_with_float64(small_blocks, dtype):
    *qkv, do = arrays((2,))
    expected, back = ops.dot_product_attention(*qkv, scale=0.5)
    o, backward = ops.dot_product_attention(*(a.astype(dtype) for a in qkv), scale=0.5)
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    for found, reference in zip((o, *backward(do.astype(dtype))), (expected, *back(do)), strict=True):
        assert found.dtype == dtype
        np.testing.assert_allclose(found, reference, rtol=tolerance, atol=tolerance)


def test_runs_on_a_device_array_and_gives_the_same_bits(small_blocks):
    pytest.importorskip("cupy")
    from tests.device_array import DeviceArray

    *qkv, do = arrays((2, 2))
    o, backward = ops.dot_product_attention(*qkv, scale=0.5)
    found, back = ops.dot_product_attention(*map(DeviceArray, qkv), scale=0.5)
    for ours, host in zip((found, *back(DeviceArray(do))), (o, *backward(do)), strict=True):
        np.testing.assert_array_equal(ours.get(), host)


@pytest.mark.parametrize("which", range(3))
def test_nan_reaches_the_queries_that_see_it(small_blocks, which):
    qkv = arrays()[:3]
    qkv[which][1, 2] = np.nan
    o, _ = ops.dot_product_attention(*qkv)
    seen = np.isnan(o)
    expected = np.zeros_like(seen)
    # In a query it spoils that query; in a key or value every query, of a value in one channel.
    expected[(slice(None), 2) if which == 0 else slice(None) if which == 1 else 1] = True
    np.testing.assert_array_equal(seen, expected)


def test_inputs_of_any_layout_are_read_as_they_are_and_never_written_to(small_blocks):
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
    small, large = (peak_of_both(ops.dot_product_attention, *positions_alone(count)) for count in (1024, 4096))
    assert large < 4.5 * small  # 16 times, if the weights were held
    assert large < 4096**2 * 4 / 2


@pytest.mark.parametrize("lead", [(), (2,)])
def test_no_queries_get_no_values_and_send_no_gradient(lead):
    q, k, v, do = arrays(lead, (3, 4, 0, 5))
    o, backward = ops.dot_product_attention(q, k, v)
    dq, dk, dv = backward(do)
    assert o.shape == do.shape
    assert dq.shape == q.shape
    np.testing.assert_array_equal(dk, np.zeros_like(k))
    np.testing.assert_array_equal(dv, np.zeros_like(v))


either_attention = pytest.mark.parametrize(
    "primitive", [ops.dot_product_attention, ops.masked_attention], ids=lambda p: p.__name__
)
misread = pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((2, 3, 5), (1, 3, 6), (2, 4, 6)), "k has shape (1, 3, 6) but q (2, 3, 5); expected the same leading axes"),
        (((2, 3, 5), (2, 3, 6), (4, 6)), "v has shape (4, 6) but q (2, 3, 5); expected the same leading axes, (2,)"),
        (((3, 5), (2, 3, 6), (2, 4, 6)), "k has shape (2, 3, 6) but q (3, 5); expected the same leading axes, ()"),
        (((2, 3, 5), (2, 3, 0), (2, 4, 0)), "k has shape (2, 3, 0); expected at least one key"),
        (((2, 3, 5), (2, 3, 6), (2, 4, 1)), "v has shape (2, 4, 1) but k (2, 3, 6); expected as many values as keys"),
    ],
)  # fmt: skip


@either_attention
@misread
def test_what_could_only_be_misread_is_refused(primitive, shapes, message):
    with pytest.raises(ValueError) as caught:
        primitive(*map(np.ones, shapes))
    assert str(caught.value).startswith(f"{primitive.__name__}: {message}")
