import functools
import tracemalloc
from contextlib import nullcontext

import numpy as np
import pytest

from npattn import ops
from npattn.module import as_tuple
from npattn.ops.context import replacing
from npattn.oracle import dividing
from npattn.oracle.dividing import divide
from npattn.oracle.extended import extend
from tests.memory import peak_of_both


def normal(*shape, seed=0):
    return extend(np.random.RandomState(seed).standard_normal(shape))


@pytest.fixture
def small(monkeypatch):
    """Make blocks so small that small arrays have many."""
    monkeypatch.setattr(dividing, "BLOCK_SIZE", 2**9)
    monkeypatch.setattr(dividing, "MIN_QUERIES", 4)


def assert_same(primitive, arguments, options, uses):
    """Hold results and gradients to those of the definition; each of `uses` is how many outputs have a gradient."""
    whole, back_whole = primitive(*arguments, **options)
    with replacing(divide):
        parts, back_parts = primitive(*arguments, **options)
    pairs = list(zip(as_tuple(parts), as_tuple(whole), strict=True))
    for count in uses:
        upstream = [normal(*y.shape, seed=i) for i, y in enumerate(as_tuple(whole)[:count])]
        pairs += zip(back_parts(*upstream), back_whole(*upstream), strict=True)
    for found, expected in pairs:
        assert (found is None) == (expected is None)
        if expected is not None:
            assert found.dtype == np.longdouble
            np.testing.assert_allclose(found.astype(float), expected.astype(float), rtol=1e-12, atol=1e-13)


QKV = normal(2, 3, 5, 37), normal(2, 3, 5, 40, seed=1), normal(2, 3, 4, 40, seed=2)


@pytest.mark.usefixtures("small")
def test_attention_for_some_queries_at_a_time_is_the_same():
    assert_same(ops.dot_product_attention, (*QKV, 0.3), {}, [1])


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"band": (-3, 0)},
        {"bias": normal(1, 3, 37, 40), "sink": normal(3), "softcap": 2.0},
        {"lengths": extend(np.array([[30.0], [10.0]])), "mask": (normal(2, 1, 37, 40) > 0).astype(np.longdouble)},
    ],
)
def test_so_it_is_with_masks_biases_and_sinks(options):
    assert_same(ops.masked_attention, (*QKV, 0.3), options, [1, 2])


WINDOWS = normal(2, 7, 3, 4, 6), normal(2, 7, 3, 4, 9, seed=1), normal(2, 7, 3, 5, 9, seed=2)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("primitive", "options", "uses"),
    [
        (ops.dot_product_attention, {}, [1]),
        (ops.masked_attention, {}, [1, 2]),
        (ops.masked_attention, {"bias": normal(2, 7, 3, 6, 9, seed=3)}, [1, 2]),
        (ops.masked_attention, {"bias": normal(7, 1, 6, 9, seed=3)}, [1]),
        (ops.masked_attention, {"band": (None, 2)}, [1]),
    ],
)
def test_attention_in_some_windows_at_a_time_is_the_same(primitive, options, uses):
    assert_same(primitive, (*WINDOWS, 0.3), options, uses)


@pytest.mark.usefixtures("small")
def test_windows_that_differ_are_refused_as_by_the_definition():
    q, k, v = WINDOWS
    with replacing(divide), pytest.raises(ValueError, match="expected the same leading axes"):
        ops.masked_attention(q[:, :5], k, v)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("wrong", [{"bias": normal(2, 7, 3, 9, 6)}, {"mask": normal(9)}])
def test_what_has_no_row_for_each_query_is_refused_by_its_own_shape(wrong):
    messages = []
    for around in (nullcontext(), replacing(divide)):
        with around, pytest.raises(ValueError, match="expected its last axes to be queries and keys") as refused:
            ops.masked_attention(*WINDOWS, **wrong)
        messages.append(str(refused.value))
    assert messages[0] == messages[1]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("primitive", [ops.dot_product_attention, ops.masked_attention])
def test_attention_whose_scale_is_given_by_name_is_the_same_and_divided(primitive):
    assert_same(primitive, QKV, {"scale": 0.3}, [1])
    assert divide(primitive, QKV, {"scale": 0.3}) is not NotImplemented


@pytest.mark.parametrize("channels", [0, 5])
@pytest.mark.parametrize("primitive", [ops.dot_product_attention, ops.masked_attention])
def test_attention_without_queries_or_channels_is_the_same(primitive, channels):
    queries = 3 if channels == 0 else 0
    assert_same(primitive, (normal(2, channels, queries), normal(2, channels, 7), normal(2, 4, 7)), {}, [1])


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("channels", "options"),
    [
        (6, {}),
        (6, {"stride": 2, "padding": 1, "dilation": 2}),
        (6, {"bias": normal(4, seed=2)}),
        (3, {"groups": 2}),
        (1, {"groups": 6, "bias": normal(12, seed=2)}),
    ],
)
def test_a_convolution_of_some_channels_at_a_time_is_the_same(channels, options):
    weight = normal(12 if channels == 1 else 4, channels, 3, 3, seed=1)
    assert_same(ops.conv2d, (normal(2, 6, 9, 8), weight), options, [1])
    if "bias" not in options and channels == 6:
        assert_same(ops.conv2d, (normal(2, 6, 9, 8), weight, normal(4, seed=2)), options, [1])


@pytest.mark.usefixtures("small")
def test_so_it_is_where_blocks_of_several_groups_leave_some_over():
    assert_same(ops.conv2d, (normal(2, 7, 9, 8), normal(14, 1, 1, 1, seed=1)), {"groups": 7}, [1])


@pytest.mark.parametrize(
    ("primitive", "arguments", "options", "share"),
    [
        (ops.dot_product_attention, [normal(2, 4, 512, seed=seed) for seed in range(3)], {}, 1 / 3),
        (ops.dot_product_attention, [normal(2, 256, 32, 49, seed=n) for n in range(3)], {}, 3 / 4),
        (ops.conv2d, [normal(1, 64, 20, 20), normal(8, 64, 3, 3)], {}, 1 / 2),
        (ops.conv2d, [normal(1, 64, 20, 20), normal(8, 16, 3, 3)], {"groups": 4}, 1 / 2),
    ],
)
def test_it_takes_a_fraction_of_the_memory(primitive, arguments, options, share):
    whole = functools.partial(primitive, **options)

    def divided(*arguments):
        with replacing(divide):
            return whole(*arguments)

    assert peak_of_both(divided, *arguments) < share * peak_of_both(whole, *arguments)


def test_between_forward_and_backward_a_convolution_holds_no_results_of_its_blocks(monkeypatch):
    monkeypatch.setattr(dividing, "BLOCK_SIZE", 1)
    x, weight = normal(1, 64, 20, 20), normal(8, 64, 3, 3)
    tracemalloc.start()
    with replacing(divide):
        y, backward = ops.conv2d(x, weight)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert callable(backward)
    assert held < 10 * y.nbytes  # of 64 blocks, whose backward passes take some too


@pytest.mark.parametrize(("channels", "divided"), [(2, True), (8, False)])
def test_what_every_block_has_to_read_or_to_add_up_is_no_more_than_what_it_computes(channels, divided, monkeypatch):
    monkeypatch.setattr(dividing, "BLOCK_SIZE", 1)
    monkeypatch.setattr(dividing, "MIN_QUERIES", 1)
    calls = [
        (ops.conv2d, (normal(1, 8, 3, 3), normal(channels, 8, 1, 1))),
        (ops.dot_product_attention, (normal(4, 4), normal(4, 9), normal(2 * channels, 9))),
    ]
    assert [divide(called, arguments, {}) is not NotImplemented for called, arguments in calls] == [divided] * 2
