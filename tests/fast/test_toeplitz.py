import numpy as np
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from npattn import ops
from npattn.ops.context import definitions
from tests.naming import for_each
from tests.ops.primitives import in_blocks, normal, way_taken
from tests.strategies import seeds

pairs = st.tuples(st.integers(1, 5), st.integers(1, 5))


def run(x, weight, bias, padding, dy):
    y, backward = ops.conv2d(x, weight, bias, padding=padding)
    return [a for a in (y, *backward(dy)) if a is not None]


@settings(max_examples=30)
@example((2, 3), (3, 3), (9, 3), (4, 1), (True, 1, 0))  # the outer taps meet no row of the map
@given(
    st.tuples(st.integers(1, 5), st.integers(2, 4)),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    pairs,
    st.tuples(st.integers(0, 4), st.integers(0, 4)),
    st.tuples(st.booleans(), st.sampled_from([1, 3]), seeds),
)
def test_rows_as_matrices_give_the_convolution_for_any_map_kernel_and_padding(maps, size, kernel, padding, others):
    (batch, out), (with_bias, count, seed) = maps, others
    padding = tuple(min(p, k - 1) for p, k in zip(padding, kernel, strict=True))
    result = [n + 2 * p - k + 1 for n, p, k in zip(size, padding, kernel, strict=True)]
    assume(min(result) >= 1 and size[1] <= 3 * kernel[1])
    x, weight = normal(batch, 1, *size, seed=seed), normal(out, 1, *kernel, seed=seed + 1)
    bias = normal(out, seed=seed + 2) if with_bias else None
    dy = normal(batch, out, *result, seed=seed + 3)
    with definitions():
        expected = run(x, weight, bias, padding, dy)
    with in_blocks(count):
        taken = way_taken(ops.conv2d, x, weight, bias, padding=padding)
        assert taken == ("conv_pointwise" if kernel == (1, 1) else "conv_rows_as_matrices")
        found = run(x, weight, bias, padding, dy)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


@for_each(
    ("shapes", "options"),
    [
        (((4, 1, 8, 8), (3, 1, 3, 3)), {"stride": 2}),
        (((4, 1, 8, 8), (3, 1, 3, 3)), {"dilation": 2}),
        (((4, 1, 8, 10), (3, 1, 3, 3)), {}),
        (((4, 1, 8, 8), (3, 1, 3, 3)), {"padding": (1, 3)}),
        (((4, 1, 8, 8), (1, 1, 3, 3)), {}),
        (((4, 2, 8, 8), (3, 2, 3, 3)), {}),
    ],
)
def test_other_convolutions_go_other_ways(shapes, options):
    x, weight = (normal(*shape) for shape in shapes)
    with in_blocks():
        assert way_taken(ops.conv2d, x[:, :1, :, :8], normal(3, 1, 3, 3), padding=1) == "conv_rows_as_matrices"
        assert way_taken(ops.conv2d, x, weight, **options) != "conv_rows_as_matrices"
