"""Every faster way is held to its primitive's definition; a way that is registered has to have its cases here."""

import threading
import timeit

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn import ops
from npattn.module import as_tuple
from npattn.ops.adding import accumulate
from npattn.ops.context import definitions
from npattn.ops.pooling import first_maximum, mean, scatter
from npattn.ops.primitive import PRIMITIVES, names_of
from npattn.ops.products import product
from npattn.ops.windowing import add_windows, window_sums
from tests.naming import for_each
from tests.ops.primitives import in_blocks, normal, patched
from tests.strategies import arrange, layouts, seeds

SIDES = st.integers(1, 7)
circumstances = st.tuples(
    st.tuples(SIDES, SIDES, SIDES, SIDES),
    st.sampled_from([np.float32, np.float64]),
    layouts,
    st.sampled_from([1, 4]),
    seeds,
)


def cases(arrays, bound=4, **options):
    """Describe a way: from sizes to the shapes of its arrays, what else it is called with, its bound in ulps.

    The bound is in units of the rounding of what the terms of a result may add up to.
    """
    return arrays, options, bound


WAYS = {
    "add_in_one_pass": cases(lambda b, c, h, w: [(b, c, h, w)] * 3),
    "accumulate_in_place": cases(lambda b, c, h, w: [(b, c, h, w), (b, 1, h, w)]),
    "relu_without_selection": cases(lambda b, c, h, w: [(b, c, h, w)], bound=0),
    "leaky_relu_of_two_lines": cases(lambda b, c, h, w: [(b, c, h, w)], bound=0, negative_slope=0.25),
    "sigmoid_block_by_block": cases(lambda b, c, h, w: [(b, c, h, w)]),
    "gelu_block_by_block": cases(lambda b, c, h, w: [(b, c, h, w)]),
    "inverse_energy_channel_by_channel": cases(lambda b, c, h, w: [(b, c, h, w)], bound=64, e_lambda=0.5),
    "gate_block_by_block": cases(lambda b, c, h, w: [(b, c, h, w), (b, c)], bound=16),
    "shift_block_by_block": cases(lambda b, c, h, w: [(b, c, h, w), (b, c)], bound=16),
    "affine_block_by_block": cases(lambda b, c, h, w: [(b, c, h, w), (1, c, 1, 1), (1, c, 1, 1)], bound=16),
    "group_norm_group_by_group": cases(
        lambda b, c, h, w: [(b, 2 * c, h + 1, w), (2 * c,), (2 * c,)], bound=64, groups=2
    ),
    "batch_norm_channel_by_channel": cases(
        lambda b, c, h, w: [(b, c, h + 1, w), (c,), (c,), (c,), (c,)], bound=64, training=True
    ),
    "concatenate_in_blocks": cases(lambda b, c, h, w: [(b, c, h, w), (b, 2, h, w)], bound=0, axis=1),
    "concatenate_and_shuffle_at_once": cases(
        lambda b, c, h, w: [(4 * b, c, h, w), (4 * b, 2, h, w)], bound=0, count=4, groups=2
    ),
    "repeat_parts_in_blocks": cases(lambda b, c, h, w: [(b, c, h, w)], times=3, axis=1),
    "split_and_join_in_blocks": cases(lambda b, c, h, w: [(b, 4, h, w)], bound=0, sizes=(1, 3), axis=1),
    "channel_shuffle_in_blocks": cases(lambda b, c, h, w: [(b, 2 * c, h, w)], bound=0, groups=2),
    "cyclic_shift_in_blocks": cases(lambda b, c, h, w: [(b, c, h, w)], bound=0, shift=(2, -1)),
    "window_partition_in_blocks": cases(lambda b, c, h, w: [(b, c, 2 * h, 3 * w)], bound=0, window=(2, 3)),
    "mean_by_einsum": cases(lambda b, c, h, w: [(b, c, h, w)], axis=(2, 3)),
    "first_maximum_by_hits": cases(lambda b, c, h, w: [(b, c, h, w)], bound=0, axis=1),
    "scatter_in_place": cases(lambda b, c, h, w: [(b, 1, h, w)], bound=1),
    "global_pools_in_one_pass": cases(lambda b, c, h, w: [(b, c, h, w)], names=("max", "lp", "avg")),
    "softmax_of_short_columns": cases(lambda b, c, h, w: [(b, h, c, w)], bound=16, axis=2),
    "softmax_in_blocks": cases(lambda b, c, h, w: [(b, c, h, w)], bound=16, axis=1),
    "score_image_by_image": cases(lambda b, c, h, w: [(b, c, h), (1, c, 1, 1), (1,)], bound=16),
    "gather_average_by_shifts": cases(lambda b, c, h, w: [(b, c, h, w)], bound=16, extent=3),
    "repeat_in_blocks": cases(lambda b, c, h, w: [(b, c, 2, 3)], size=(4, 9)),
    "matmul_by_vector": cases(lambda b, c, h, w: [(b, c, h), (b, h, 1)], bound=8),
    "product_in_blocks": cases(lambda b, c, h, w: [(b, c, h), (b, h, w)], bound=8),
    "pad_in_blocks": cases(lambda b, c, h, w: [(b, c, h, w)], bound=0, margin=2),
    "unfold_in_blocks": cases(lambda b, c, h, w: [(b, c, h, w)], window=3, stride=2),
    "fold_in_blocks": cases(lambda b, c, h, w: [(b, c, *windows(h, w), min(h, 3), min(w, 3))]),
    "window_sums_by_products": cases(lambda b, c, h, w: [(b, c, h, w)], bound=16, window=3, stride=2),
    "window_sums_by_runs": cases(lambda b, c, h, w: [(b, c, h, w)], bound=16, window=3, stride=2),
    "add_windows_by_products": cases(lambda b, c, h, w: [(b, c, *windows(h, w))], bound=16),
    "add_windows_by_runs": cases(lambda b, c, h, w: [(b, c, *windows(h, w))], bound=16),
    "conv_pointwise": cases(lambda b, c, h, w: [(b, c, h, w), (w, c, 1, 1), (w,)], bound=32),
    "project_at_once": cases(
        lambda b, c, h, w: [(b, c, h, w), (w, c, 1, 1), (w,), (h + 1, c, 1, 1), (h + 1,)], bound=64
    ),
    "conv_row_by_row": cases(lambda b, c, h, w: [(b, c + 3, h, w), (w, c + 3, 3, 2), (w,)], bound=64, padding=1),
    "conv_group_by_group": cases(
        lambda b, c, h, w: [(b, 2 * c + 6, h, w), (2 * w, c + 3, 3, 2), (2 * w,)], bound=64, padding=1, groups=2
    ),
    "conv_in_tiles": cases(lambda b, c, h, w: [(b, c + 3, h + 2, w + 2), (w, c + 3, 3, 3), (w,)], bound=256, padding=1),
    "attention_in_blocks": cases(lambda b, c, h, w: [(b, c, h), (b, c, w), (b, h, w)], bound=128, scale=0.5),
    "attention_in_seen_blocks": cases(
        lambda b, c, h, w: [(b, c, h), (b, c, w), (b, h, w)], bound=128, scale=0.5, band=(None, 2), softcap=1.5
    ),
    "conv_rows_as_matrices": cases(
        lambda b, c, h, w: [(b, 1, h + 1, w), (c + 1, 1, 4, 3), (c + 1,)], bound=64, padding=(1, 1)
    ),
    "apply_lambdas_in_blocks": cases(lambda b, c, h, w: [(b, 2, c, h), (b, w, c, h)], bound=32),
    "relative_logits_at_once": cases(
        lambda b, c, h, w: [(b, c, h, w), (2 * h + 3, c), (2 * w - 1, c)], bound=32, scale=0.5
    ),
    "affinity_sums_by_halves": cases(lambda b, c, h, w: [(b, c, h + w), (b, 2, h + w)], bound=128),
}
FOUND = [(primitive, way) for primitive in PRIMITIVES for way in primitive.ways]
all_ways = for_each(("primitive", "way"), FOUND)


def windows(height, width):
    return len(ops.window_starts(height, 3, 2)), len(ops.window_starts(width, 3, 2))


def draw(name, sizes, dtype, seed):
    """Arrays and options for a way."""
    shapes, options, _ = WAYS[name]
    arrays = [normal(*shape, seed=seed + i).astype(dtype) for i, shape in enumerate(shapes(*sizes))]
    if name.startswith("scatter"):
        other = normal(*sizes, seed=seed + 5).astype(dtype)
        index = np.random.RandomState(seed).randint(0, sizes[1], arrays[0].shape)
        return [*arrays, index, 1, tuple(sizes), other], options
    if name.startswith(("add_windows", "fold")):
        options = {"size": tuple(sizes[2:]), "window": 3, "stride": 2}
    return arrays, options


def as_arguments(function, arrays):
    """Give arrays as a function takes them: some take several as one."""
    return [tuple(arrays)] if function.__name__.startswith("concatenate") else arrays


def compute(function, arrays, options, *, absolute=False, spoil=None, arrangement=None, times=1):
    """Run a way: its values, and its gradients where it has some, which may be asked for several times.

    Of what the gradients are made of, one number may be spoilt; it may be laid out in another way.
    """
    first_or_last = {"accumulate": 0, "scatter": -1}
    for name, i in first_or_last.items():  # which may be written to
        if function.__name__.startswith(name):
            arrays = [*arrays]
            arrays[i] = arrays[i].copy(order="K")
    result = function(*as_arguments(function, arrays), **options)
    if not (isinstance(result, tuple) and callable(result[-1])):
        return list(as_tuple(result))
    value, backward = result
    constants = ()
    if function.__name__.startswith("batch_norm"):
        value, constants = value
    values = as_tuple(value)
    upstream = [normal(*v.shape, seed=9 + i).astype(np.float32).astype(v.dtype) for i, v in enumerate(values)]
    if absolute:
        upstream = [np.abs(dy) for dy in upstream]
    if spoil is not None:
        upstream[0].reshape(-1)[0] = spoil
    if arrangement is not None:
        upstream = [arrangement(dy) for dy in upstream]
    found = [*values, *constants]
    for _ in range(times):
        if function.__name__.startswith(("affinity", "masked", "attention_in_seen")):
            gradients = backward(*upstream)
        else:
            gradients = backward(tuple(upstream) if isinstance(value, tuple) else upstream[0])
        found.extend(g for g in as_tuple(gradients) if g is not None)
    return found


def size_of_terms(primitive, arrays, options):
    """Tell how much the terms of a result may add up to: the largest of the results for the sizes of all numbers."""
    absolute = [np.abs(a) if is_float(a) else a for a in arrays]
    with np.errstate(all="ignore"):
        found = compute(primitive.definition, absolute, options, absolute=True)
    return max(np.abs(f).max(initial=0) for f in found)


def is_float(a):
    return isinstance(a, np.ndarray) and a.dtype.kind == "f"


def assert_within(found, expected, bound, dtype, size):
    """Hold results against those of a definition in float64."""
    bound = bound * np.finfo(dtype).eps
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert one.dtype == (dtype if other.dtype.kind == "f" else other.dtype)
        np.testing.assert_allclose(one, other, rtol=bound, atol=bound * size)


def measure(primitive, arrays, options):
    """Tell what decides whether arrays are large: the constant's name, and what is compared with it."""
    x, *others = arrays
    pairs = len(x) * x.shape[2]  # with as many as there are keys
    counts = {
        product: lambda: x.size * others[0].shape[-1],
        ops.dot_product_attention: lambda: pairs * others[0].shape[2],
        ops.masked_attention: lambda: pairs * others[0].shape[2],
        ops.apply_lambdas: lambda: others[0].size,
        ops.relative_logits: lambda: pairs * x.shape[3] * np.prod([(len(table) + 1) // 2 for table in others]),
        ops.affinity_sums: lambda: pairs * x.shape[2],
        add_windows: lambda: len(x) * x.shape[1] * np.prod(options["size"]),
        ops.resize_nearest: lambda: len(x) * x.shape[1] * np.prod(options["size"]),
        ops.conv2d: lambda: x.size // options.get("groups", 1) * np.prod(others[0].shape[2:]),
        scatter: lambda: others[-1].size,
        ops.concatenate: lambda: [a.size for a in arrays if is_float(a)][-1],
        ops.concatenate_and_shuffle: lambda: [a.size for a in arrays if is_float(a)][-1],
        ops.repeat: lambda: x.size * options["times"],
    }
    constants = {product: "MIN_MULTIPLICATIONS", ops.score: "MIN_UNCACHED_SIZE"}
    return constants.get(primitive, "MIN_PARALLEL_SIZE"), counts.get(primitive, lambda: x.size)()


def test_every_way_has_its_cases():
    assert {way.compute.__name__ for _, way in FOUND} == set(WAYS)
    assert len(FOUND) == len(WAYS)


def test_to_ask_for_ways_takes_small_arrays_a_microsecond_or_two():
    def seconds(functions, arguments, options):
        def ask():
            for function in functions:
                assert not function(*arguments, **options)

        return min(timeit.repeat(ask, number=100, repeat=20)) / 100

    def microseconds(functions, *given):
        empty = seconds([lambda *_, **__: False], [np.ones(2)], {})  # how long it takes tells how busy the machine is
        return 1e6 * seconds(functions, *given) / max(1.0, empty / 90e-9)

    for primitive in dict.fromkeys(primitive for primitive, _ in FOUND):
        arrays, options = draw(primitive.ways[-1].compute.__name__, (1, 2, 3, 3), np.float32, 0)
        given = [way.suits for way in primitive.ways], as_arguments(primitive, arrays), options
        assert any(microseconds(*given) < 2 for _ in range(10)), primitive.__name__


@pytest.mark.parametrize(("primitive", "way"), FOUND, ids=[way.compute.__name__ for _, way in FOUND])
@settings(max_examples=12)
@given(circumstances)
def test_a_way_gives_values_and_gradients_of_its_definition_in_every_layout(primitive, way, circumstance):
    sizes, dtype, layout, count, seed = circumstance
    arrays, options = draw(way.compute.__name__, sizes, dtype, seed)
    wide = [a.astype(np.float64) if is_float(a) else a for a in arrays]
    repeated = layout == "strided"  # so may be a gradient that is broadcast

    def arrangement(dy):
        return np.broadcast_to(dy[..., :1], dy.shape) if repeated else arrange(dy, layout)

    expected = compute(primitive.definition, wide, options, arrangement=arrangement)
    with in_blocks(count):
        laid_out = [arrange(a, layout) if is_float(a) else a for a in arrays]
        found = compute(way.compute, laid_out, options, arrangement=arrangement)
    assert_within(found, expected, WAYS[way.compute.__name__][2], dtype, size_of_terms(primitive, wide, options))


@all_ways
def test_a_way_takes_the_machines_floats_alone(primitive, way):
    arrays, options = draw(way.compute.__name__, (2, 3, 4, 5), np.float64, 0)
    if way.compute.__name__ == "conv_in_tiles":
        arrays = [a.astype(np.float32) for a in arrays]

    class Other(np.ndarray):
        pass

    with in_blocks(), patched("MIN_TILED_CHANNELS", 1), patched("MIN_TILED_POSITIONS", 1), patched("MAX_SIDE", 0):
        assert way.suits(*as_arguments(primitive, arrays), **options) or "by_products" in way.compute.__name__
        for kind in (np.float16, np.longdouble, complex):
            others = [a.astype(kind) if is_float(a) else a for a in arrays]
            assert not way.suits(*as_arguments(primitive, others), **options)
        views = [a.view(Other) if isinstance(a, np.ndarray) else a for a in arrays]
        assert not way.suits(*as_arguments(primitive, views), **options)
        if sum(map(is_float, arrays)) > 1:
            *others, last = arrays
            kind = np.float32 if last.dtype == np.float64 else np.float64
            mixed = [*others, last.astype(kind)] if len(arrays) != 3 or "conv" not in way.compute.__name__ else None
            assert mixed is None or not way.suits(*as_arguments(primitive, mixed), **options)


@all_ways
@for_each("value", [-np.inf, np.nan])
def test_a_way_passes_infinity_and_nan_as_its_definition_does(primitive, way, value):
    arrays, options = draw(way.compute.__name__, (2, 3, 4, 5), np.float32, 0)
    spoilt = [(arrays, value)]
    for i, a in enumerate(arrays):
        if is_float(a):
            others = [b.copy() if is_float(b) else b for b in arrays]
            others[i].reshape(-1)[a.size // 2] = value
            spoilt.append((others, None))
    with np.errstate(all="ignore"):
        for some, spoil in spoilt:
            expected = compute(primitive.definition, some, options, spoil=spoil)
            with in_blocks():
                found = compute(way.compute, some, options, spoil=spoil)
            for one, other in zip(found, expected, strict=True):
                for is_kind in (np.isnan, np.isposinf, np.isneginf):
                    np.testing.assert_array_equal(is_kind(one), is_kind(other))


@all_ways
def test_arguments_may_be_given_by_name(primitive, way):
    arrays, options = draw(way.compute.__name__, (2, 8, 9, 8), np.float32, 0)
    names = names_of(primitive.definition)
    with in_blocks(2), patched("MIN_TILED_CHANNELS", 1), patched("MIN_TILED_POSITIONS", 1), patched("MAX_SIDE", 0):
        expected = compute(primitive, arrays, options)
        for cut in range(len(names) if len(names) >= len(as_arguments(primitive, arrays)) else 0):

            def by_name(*placed, cut=cut, **others):
                return primitive(*placed[:cut], **dict(zip(names[cut:], placed[cut:], strict=False)), **others)

            by_name.__name__ = primitive.__name__
            for one, other in zip(compute(by_name, arrays, options), expected, strict=True):
                np.testing.assert_array_equal(one, other)


@for_each(
    "reduce",
    [
        lambda x, back: ops.average_pool(x, axis=-1 if back else 3),
        lambda x, back: ops.average_pool(x, axis=(-2, -1) if back else (2, 3)),
        lambda x, back: ops.max_pool(x, axis=-3 if back else 1),
        lambda x, back: ops.softmax(x, axis=-3 if back else 1),
    ],
)
def test_axes_may_be_counted_from_the_end(reduce):
    x = normal(2, 3, 4, 5)
    with in_blocks():
        (found, back), (expected, back_expected) = (reduce(x, one) for one in (True, False))
        for one, other in ((found, expected), (back(found), back_expected(expected))):
            np.testing.assert_allclose(one, other, rtol=1e-12)


@all_ways
def test_an_empty_batch_gives_empty_results(primitive, way):
    if primitive is ops.batch_norm:  # an empty batch has no mean
        return
    arrays, options = draw(way.compute.__name__, (0, 3, 4, 5), np.float32, 0)
    with in_blocks():
        found = compute(primitive, arrays, options)
    for one, other in zip(found, compute(primitive.definition, arrays, options), strict=True):
        np.testing.assert_array_equal(one, other)


@all_ways
def test_bits_depend_neither_on_the_number_of_threads_nor_on_what_others_do(primitive, way):
    arrays, options = draw(way.compute.__name__, (5, 6, 7, 9), np.float32, 1)
    found = []
    for count in (1, 2, 3):
        with in_blocks(count):
            found.append(compute(way.compute, arrays, options))
    with in_blocks(2):
        stop = threading.Event()
        a = normal(200, 200).astype(np.float32)

        def work():
            while not stop.is_set():
                product(a, a)

        other = threading.Thread(target=work)
        other.start()
        try:
            found.extend(compute(way.compute, arrays, options) for _ in range(2))
        finally:
            stop.set()
            other.join()
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            np.testing.assert_array_equal(one, other)


def frozen(array):
    return arrange(array, "read-only")


@all_ways
@for_each("dtype", [np.float32, np.float64])
def test_a_way_writes_to_nothing_it_was_given_and_its_gradient_may_be_asked_for_again(primitive, way, dtype):
    arrays, options = draw(way.compute.__name__, (4, 3, 4, 5), dtype, 2)
    given = [frozen(a) if isinstance(a, np.ndarray) else a for a in arrays]
    with in_blocks(2):
        found = compute(way.compute, given, options, arrangement=frozen, times=2)
    for a, b in zip(given, arrays, strict=True):
        np.testing.assert_array_equal(a, b)
    gradients = len(found) - len(compute(primitive.definition, arrays, options))
    for first, second in zip(found[-gradients:], found[-2 * gradients : -gradients], strict=gradients > 0):
        np.testing.assert_array_equal(first, second)


@all_ways
@for_each("beyond", [-1, 0, 1])
def test_a_way_begins_at_its_threshold_and_nothing_but_rounding_changes_there(primitive, way, beyond):
    name, dtype = way.compute.__name__, np.float32
    if name == "conv_pointwise":  # which gains at every size
        return
    arrays, options = draw(name, (2, 3, 4, 5), dtype, 0)
    constant, size = measure(primitive, arrays, options)
    wide = [a.astype(np.float64) if is_float(a) else a for a in arrays]
    with (
        in_blocks(2),
        patched("MIN_TILED_CHANNELS", 1),
        patched("MIN_TILED_POSITIONS", 1),
        patched("MIN_SERIAL", 2**60),
        patched(constant, size - beyond),
    ):
        assert bool(way.suits(*as_arguments(primitive, arrays), **options)) is (beyond >= 0)
        found = compute(primitive, arrays, options)
    bounds = [WAYS[other.compute.__name__][2] for other in primitive.ways]
    expected = compute(primitive.definition, wide, options)
    assert_within(found, expected, max(bounds), dtype, size_of_terms(primitive, wide, options))


@for_each("primitive", [primitive for primitive in PRIMITIVES if primitive.ways])
def test_small_arrays_take_the_definition(primitive):
    for way in primitive.ways:
        if way.compute.__name__ == "conv_pointwise":  # which gains at every size
            continue
        arrays, options = draw(way.compute.__name__, (2, 3, 4, 5), np.float64, 0)
        assert not way.suits(*as_arguments(primitive, arrays), **options)


def test_kernels_are_primitives_with_definitions_of_their_own():
    for kernel in (accumulate, mean, first_maximum, scatter, product, window_sums, add_windows):
        assert kernel in PRIMITIVES
        assert kernel.ways


def test_definitions_take_no_thread():
    with in_blocks(), patched("parallel_for", None), definitions():
        y, backward = ops.gate(normal(2, 3, 4, 5), normal(2, 3))
        backward(y)
