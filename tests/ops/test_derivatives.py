"""Every definition's gradients, entry by entry, against the complex step; a new primitive needs its cases here."""

import numpy as np

from npattn import ops
from npattn.ops.attention import average_slope, weigh_values
from npattn.ops.elementwise import ACTIVATIONS, GATES
from npattn.ops.gating import affine
from npattn.ops.pooling import first_maximum, mean, scatter
from npattn.ops.primitive import PRIMITIVES
from npattn.ops.products import product
from npattn.ops.windowing import add_windows, window_sums
from npattn.oracle.gradcheck import STEP
from tests.naming import for_each
from tests.ops.primitives import normal, worst_error

CORNERS = np.array([-30.0, -3.0, -0.0, 0.0, 1e-300, 3.0, 30.0])
LABELS = np.array([[[0, 1], [-100, 2]], [[2, 2], [0, -100]]])
MASKS = [np.random.RandomState(0).randint(0, 2, shape).astype(float) for shape in ((2, 3), (2, 3, 1, 4), (2,))]
STATISTICS = normal(2, seed=3), np.array([0.5, 2.0])


def first(primitive):
    """Leave all values of a primitive aside but the first, the only one that gradients come back from."""

    def run(*arrays, **options):
        (value, *_), backward = primitive(*arrays, **options)
        return value, backward

    return run


def joined(primitive, apart=False):
    """Make one value of several; their gradients are given as a tuple, or apart."""

    def run(*arrays, **options):
        values, backward = primitive(*arrays, **options)
        ends = np.cumsum([value.size for value in values])[:-1]

        def backward_of_all(dy):
            parts = [part.reshape(v.shape) for part, v in zip(np.split(dy.ravel(), ends), values, strict=True)]
            return backward(*parts) if apart else backward(tuple(parts))

        return np.concatenate([value.ravel() for value in values]), backward_of_all

    return run


def with_zero_channel():
    x = normal(1, 2, 3, 3)
    x[:, 0] = 0
    return x


def shaped(*shapes):
    return [normal(*shape, seed=i) for i, shape in enumerate(shapes)]


def convolution(weight, **options):
    return ops.conv2d, shaped((2, 4, 5, 6), weight, weight[:1]), options, 1e-12


def beside(*names):
    """Give arrays behind queries, keys and values by name; take averages and logsumexp as one value."""

    def way(primitive):
        def run(q, k, v, *others, **options):
            both, backward = primitive(q, k, v, **options, **dict(zip(names, others, strict=True)))
            return both, lambda do, dl: tuple(g for g in backward(do, dl) if g is not None)

        return joined(run, apart=True)

    return way


MASKED = [
    ({}, {"scale": 0.7, "softcap": 0.5}, 1e-12),
    ({"bias": (4, 5, 6)}, {"band": (-2, 1), "softcap": 3.0}, 1e-12),
    ({"bias": (1, 1, 5, 6), "sink": (4,)}, {"lengths": np.array([[6.0, 1.0, 0.0, 4.0]])}, 1e-12),
    ({"sink": (1,)}, {"band": (None, 0), "mask": (normal(4, 5, 6, seed=5) > 0).astype(float)}, 1e-12),
    ({"sink": (1, 4)}, {"band": (3, None)}, 1e-12),
]
"""Shapes of a bias and a sink, options, bound; some queries see no key."""


# Primitive, arrays, options, bound; where it has several values, how they are made one.
CASES = [
    (ops.add, shaped((2, 3, 4)), {}, 1e-14),
    (ops.add, shaped(*[(2, 3, 4)] * 4), {}, 1e-14),
    (ops.affinity_sums, shaped((2, 3, 7), (2, 2, 7)), {}, 1e-12, lambda p: joined(p, apart=True)),
    *(
        (ops.dot_product_attention, shaped((*b, 3, 5), (*b, 3, 6), (*b, 4, 6)), {"scale": 0.7}, 1e-12)
        for b in [(), (2, 2)]
    ),
    *(
        (ops.criss_cross_attention, shaped((*b, 3, 2, 4), (*b, 3, 2, 4), (*b, 2, 2, 4)), {}, 1e-12)
        for b in [(), (2,), (1, 2)]
    ),
    (ops.criss_cross_attention, shaped(*[(2, 3, 1, 1)] * 3), {}, 1e-12),
    (ops.linear_attention, shaped((3, 5), (3, 6), (4, 6)), {}, 1e-13),
    (ops.linear_attention, shaped((2, 2, 3, 5), (2, 2, 3, 6), (2, 2, 1, 6)), {"scale": -0.3}, 1e-13),
    *((ops.pad, shaped((2, 1, 2, 3)), {"margin": margin}, 0) for margin in (0, 2)),
    *(
        (ops.relative_logits, shaped(queries, (rows, 3), (columns, 3)), {"scale": scale}, 1e-13)
        for queries, rows, columns, scale in (
            ((3, 2, 3), 3, 5, 1.0),
            ((2, 2, 3, 2, 1), 7, 3, -0.3),
            ((1, 3, 1, 1), 1, 1, 2.0),
        )
    ),
    *(
        (ops.masked_attention, shaped((1, 4, 3, 5), (1, 4, 3, 6), (1, 4, 2, 6), *given.values()), *rest, beside(*given))
        for given, *rest in MASKED
    ),
    (ops.apply_lambdas, shaped((2, 3, 2, 4), (2, 5, 2, 4)), {}, 1e-13),
    (ops.cyclic_shift, shaped((2, 3, 4, 5)), {"shift": (1, -2)}, 0),
    (ops.window_partition, shaped((2, 2, 3, 5)), {"window": (2, 3)}, 0),
    (ops.window_reverse, shaped((2, 2, 4, 6)), {"window": (2, 3), "size": (3, 5)}, 0),
    *((ops.gather_relative, shaped(shape), {"size": (2, 3)}, 1e-14) for shape in ((15, 2), (3, 5, 2))),
    (ops.channel_shuffle, shaped((2, 6, 2)), {"groups": 3}, 0),
    (ops.repeat, shaped((2, 3, 4)), {"times": 3, "axis": 1}, 1e-14),
    *((ops.conv1d, shaped((2, length), (1, 1, k)), {}, 1e-12) for length in (1, 2, 8) for k in (1, 3, 7)),
    (ops.project, shaped((2, 3, 2, 4), (2, 3, 1, 1), (2,), (4, 3, 1, 1), (4,)), {}, 1e-12, joined),
    convolution((2, 4, 3, 2)),
    convolution((4, 4, 1, 1)),
    convolution((2, 4, 3, 2), stride=2, padding=1),
    convolution((4, 4, 3, 2), dilation=2, padding=(2, 3)),
    convolution((2, 2, 3, 2), groups=2),
    convolution((4, 2, 3, 2), stride=(1, 2), groups=2),
    (ops.conv2d, shaped((1, 2, 4, 3), (3, 2, 2, 2)), {"padding": 1}, 1e-12),
    *((ops.dropout, shaped((2, 3, 4, 4)), {"mask": mask, "rate": 0.3}, 1e-15) for mask in MASKS),
    *(
        (primitive, arrays, {}, 1e-13)
        for primitive in (*ACTIVATIONS.values(), *GATES.values(), ops.tanh)
        for arrays in (shaped((3, 4)), [CORNERS])
    ),
    (ops.leaky_relu, [CORNERS], {"negative_slope": 0.3}, 0),
    *(
        (primitive, shaped((2, 3, 4, 2), shape), {}, 1e-12)
        for primitive in (ops.gate, ops.shift)
        for shape in ((2,), (2, 3), (2, 1, 4, 2), (2, 3, 4, 1), (1, 3, 1, 1), (1,), (2, 3, 4, 2))
    ),
    (affine, shaped((2, 3, 4, 2), (1, 3, 1, 1), (1, 3, 1, 1)), {}, 1e-12),
    *((ops.concatenate, shaped((2, 1, 2), (2, 3, 2)), {"axis": axis}, 0, "sequence") for axis in (1, -2)),
    (ops.concatenate_and_shuffle, shaped((6, 1, 2), (6, 2, 2)), {"count": 3, "groups": 3}, 0, "sequence"),
    (ops.split, shaped((2, 4, 3)), {"sizes": (1, 3), "axis": 1}, 0, joined),
    *((ops.linear, shaped((2, 3), (4, 3, *kernel), (4,)), {}, 1e-13) for kernel in ((), (1, 1))),
    *((ops.cross_entropy, [s * normal(2, 3, 2, 2)], {"labels": LABELS}, 1e-13) for s in (1, 5)),
    *(
        (
            ops.batch_norm,
            shaped((3, 2, 2, 3), (2,), (2,)),
            dict(zip(("running_mean", "running_var"), STATISTICS, strict=True)) | {"training": training},
            1e-12,
            first,
        )
        for training in (True, False)
    ),
    (ops.l2_normalize, shaped((2, 3, 2, 2)), {}, 1e-12),
    *(
        (ops.inverse_energy, shaped(shape), {"e_lambda": e_lambda, "correction": correction}, 1e-12)
        for shape in ((2, 3, 4, 2), (1, 2, 1, 3), (2, 2, 1, 1))
        for e_lambda, correction in ((1e-4, 1), (1.0, 0))
    ),
    *((ops.sum_normalize, [abs(normal(2, 3, 4))], {"axis": axis}, 1e-13) for axis in (0, 1, -1)),
    (ops.sum_normalize, [abs(normal(2, 3, 4))], {"axis": 1, "eps": 0.3}, 1e-13),
    *(
        (ops.z_score, shaped(shape), {"eps": eps, "correction": correction}, 1e-12)
        for shape in ((2, 3, 5), (4,), (2, 1, 1))
        for eps, correction in ((1e-5, 1), (0.3, 0))
    ),
    (ops.layer_norm, shaped((2, 3, 5), (5,), (5,)), {}, 1e-12),
    (ops.layer_norm, shaped((4,), (4,), (4,)), {"eps": 0.3}, 1e-12),
    *(
        (ops.group_norm, shaped((2, 4, 2, 3), (4,), (4,)), {"groups": groups, "eps": eps}, 1e-12)
        for groups, eps in [(1, 1e-5), (2, 0.3), (4, 1e-5)]
    ),
    (ops.l2_normalize, [9 * normal(2, 3, 2, 2)], {"eps": 0.3}, 1e-12),
    *((ops.average_pool, shaped((2, 3, 4, 5)), {"axis": axis}, 1e-13) for axis in (1, 2, 3, (2, 3))),
    *((ops.max_pool, shaped((2, 3, 4, 5)), {"axis": axis}, 1e-13) for axis in (1, 2, 3)),
    *(
        (pool, shaped(shape), {}, 1e-13)
        for pool in (ops.global_average_pool, ops.global_max_pool, ops.global_lp_pool, ops.global_lse_pool)
        for shape in ((2, 3, 4, 5), (2, 3, 1, 1))
    ),
    (ops.global_lp_pool, [with_zero_channel()], {}, 1e-13),
    *(
        (ops.global_pools, shaped((2, 3, 4, 5)), {"names": names}, 1e-13, joined)
        for names in (("avg", "max"), ("lp", "max", "lse", "avg"))
    ),
    (ops.matmul, shaped((2, 3, 4), (2, 4, 5)), {}, 1e-14),
    (ops.gram, shaped((2, 3, 4)), {}, 1e-14),
    *((ops.gather_average, shaped((1, 2, 5, 4)), {"extent": extent}, 1e-13) for extent in (1, 2, 3, 7)),
    *((ops.resize_nearest, shaped((1, 2, 3, 4)), {"size": size}, 1e-13) for size in ((3, 4), (1, 1), (7, 9), (2, 8))),
    *(
        (ops.resize_bilinear, shaped((1, 2, 3, 4)), {"size": size, "align_corners": corners}, 1e-13)
        for size in ((3, 4), (1, 1), (7, 9), (2, 8), (5, 1))
        for corners in (True, False)
    ),
    (ops.score, shaped((3, 4, 5), (1, 4, 1, 1), (1,)), {}, 1e-13),
    (ops.take, shaped((3, 4, 5)), {"index": np.array([[3, 0], [2, 4], [1, 0]])}, 0),
    (ops.select, shaped((3, 4, 5)), {"index": np.array([3, 2, 0])}, 0, "of x"),
    (ops.top, shaped((4, 7)), {"k": 3}, 0, first),
    *((ops.softmax, shaped((2, 3, 4)), {"axis": axis}, 1e-13) for axis in (0, 1, 2, -1)),
    (ops.softmax, [normal(2, 3, 4) + 1e4], {}, 1e-12),
    (ops.softmin, shaped((2, 3, 4)), {}, 1e-13),
    (ops.unfold_windows, shaped((1, 2, 4, 6)), {"window": 3, "stride": 2}, 1e-14),
    (ops.fold_windows, shaped((1, 2, 2, 3, 3, 3)), {"size": (4, 6), "window": 3, "stride": 2}, 1e-14),
    (ops.window_average, shaped((1, 2, 4, 6)), {"window": 3, "stride": 2}, 1e-14),
    (ops.overlap_average, shaped((1, 2, 2, 3)), {"size": (4, 6), "window": 3, "stride": 2}, 1e-14),
]
INDEX = np.array([[[1, 0, 1]], [[0, 1, 1]]])
# Without a gradient of their own: steps of other primitives, linear in each array where nothing changes places.
STEPS = [
    (ops.accumulate, shaped((2, 3), (2, 3)), {}),
    (mean, shaped((2, 3, 4)), {"axis": (1, 2)}),
    (first_maximum, shaped((2, 3, 4)), {"axis": 1}),
    (scatter, [normal(2, 1, 3)], {"index": INDEX, "axis": 1, "shape": (2, 2, 3), "accumulate_into": None}),
    (product, shaped((2, 3, 4), (4, 2)), {}),
    (average_slope, shaped((2, 3, 4), (2, 3, 4), (2, 4)), {}),
    (weigh_values, shaped((2, 3, 4), (2, 5, 4)), {"total": np.full((2, 5, 1), 3.0)}),
    (window_sums, shaped((1, 2, 4, 6)), {"window": 3, "stride": 2}),
    (add_windows, shaped((1, 2, 2, 3)), {"size": (4, 6), "window": 3, "stride": 2}),
]


def bind(primitive, options, way=None):
    """A primitive of nothing but arrays, with one value."""
    if way == "sequence":
        return lambda *arrays: primitive(arrays, **options)
    if way == "of x":  # what a weight of 0 or 1 would do has no complex step

        def run(x):
            y, backward = primitive(x, **options)
            return y, lambda dy: backward(dy)[0]

        return run
    called = way(primitive) if way else primitive
    return lambda *arrays: called(*arrays, **options)


def label(case):
    shapes = " ".join("×".join(map(str, array.shape)) for array in case[1])
    return f"{case[0].__name__}-{shapes}"


def test_every_primitive_has_its_cases():
    there = {primitive for primitive in PRIMITIVES if primitive.__module__.startswith("npattn.ops")}
    with_gradient, steps = ({case[0] for case in cases} for cases in (CASES, STEPS))
    assert with_gradient | steps == there
    assert not with_gradient & steps


@for_each("case", CASES)
def test_gradients_agree_with_the_complex_step(case):
    primitive, arrays, options, bound, *way = case
    assert worst_error(bind(primitive, options, *way), *arrays) <= bound


@for_each("case", STEPS)
def test_steps_take_the_complex_step_as_it_is(case):
    primitive, arrays, options = case

    def run(*arrays):
        found = primitive(*arrays, **options)
        return found[1] if primitive is first_maximum else found

    value = run(*arrays)
    assert isinstance(value, np.ndarray)
    for i, array in enumerate(arrays):
        step = normal(*array.shape, seed=9)
        ahead, lifted = ([a + h * step if i == j else a for j, a in enumerate(arrays)] for h in (1e-3, 1j * STEP))
        slope = (run(*ahead) - value) / 1e-3
        np.testing.assert_allclose(run(*lifted).imag / STEP, slope, rtol=1e-9, atol=1e-10)
