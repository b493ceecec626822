import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import npattn
from npattn import ops
from npattn.oracle import generic_values
from npattn.oracle.formats import FORMATS
from npattn.oracle.mistakes import FAULTS, HELD_OUT, MISTAKES, arrays, families, faulty, passes, sites
from npattn.oracle.mistakes.mistake import argument, gradient, instead, mistake, upstream, value
from npattn.oracle.mistakes.planting import answering, completed
from npattn.oracle.rounding import Rounding
from tests.benchmarks import judge, kernels
from tests.naming import for_each
from tests.strategies import seeds

X = np.array([[-1.0, 2.0, -3.0]])


def run(module, *given):
    return module(*given)


def named(name, way=None):
    return next(f for f in FAULTS if str(f) == name and way in (None, f.way))


def equal(found, expected):
    return all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


# Where mistakes stand


@settings(max_examples=20)
@given(count=st.integers(1, 6), data=st.data())
def test_a_fault_changes_the_call_of_its_number_alone(count, data):
    site = data.draw(st.integers(0, count - 1))

    def module(x):
        found = [ops.relu(x * (i + 1)) for i in range(count)]
        return [y for y, _ in found] + [back(np.ones_like(x)) for _, back in found]

    right = module(X)
    for name, at in (("relu: left out", site), ("relu: gradient: left out", count + site)):
        assert sites(run, [named(name)], module, X) == {named(name): list(range(count))}
        wrong = faulty(run, named(name), site)(module, X)
        assert [i for i, (a, b) in enumerate(zip(wrong, right, strict=True)) if not np.array_equal(a, b)] == [at]


def test_a_number_beyond_the_last_call_changes_nothing():
    assert equal(faulty(run, named("relu: left out"), 1)(lambda x: [ops.relu(x)[0]], X), [ops.relu(X)[0]])


@for_each("key", judge.SYSTEMS)
def test_looking_for_sites_changes_no_bit_of_a_result(key):
    module = judge.SYSTEMS[key].example()
    values = judge.some_values(module, batch=2, height=4, width=3)
    right, found = kernels.run_reference(module, *values), {}

    def watched(*given):
        found.update(kernels.run_reference(*given))

    assert sites(watched, FAULTS, module, *values)
    assert all(np.array_equal(found[name], right[name]) for name in right)


def test_what_a_primitive_calls_within_is_no_site_of_its_own():
    index = np.array([1, 0])
    maps = np.arange(12.0).reshape(2, 2, 3)
    for outer, name in (
        (lambda: [ops.softmin(X)], "softmax: sign lost"),
        (lambda: [ops.select(maps, index)], "take: one position on"),
        (lambda: [ops.concatenate([X, X], axis=1)], "split: parts in the wrong order"),
    ):

        def module(x, outer=outer):
            return [back(np.ones_like(y)) for y, back in outer()]

        assert sites(run, [named(name)], module, X) == {}
        wrong = faulty(run, named(name), 0)(module, X)
        assert equal(flat(tuple(wrong)), flat(tuple(module(X))))


def test_calls_in_backward_of_a_system_itself_count():
    def module(x):
        _, back = ops.relu(x)
        return [ops.relu(back(x) - 1)[0]]

    assert sites(run, [named("relu: left out")], module, X)[named("relu: left out")] == [0, 1]
    assert (faulty(run, named("relu: left out"), 1)(module, X)[0] < 0).any()


def test_pools_that_are_handed_on_to_are_sites():
    maps = np.arange(24.0).reshape(2, 3, 2, 2)
    lost = named("global_max_pool: mean for maximum")

    def module(x):
        pooled, _ = ops.global_pools(x, ("avg", "max"))
        return [*pooled, ops.global_average_pool(x)[0]]

    assert sites(run, [lost, named("global_average_pool: sum for mean")], module, maps) == {
        named("global_average_pool: sum for mean"): [0, 1],
        lost: [0],
    }
    average, wrong, _ = faulty(run, lost, 0)(module, maps)
    np.testing.assert_array_equal(wrong, average)


def test_a_primitive_that_hands_on_may_be_answered_as_well():
    maps = np.arange(24.0).reshape(2, 3, 2, 2)
    seen = []

    def answer(primitive, arguments, options):
        seen.append(primitive.__name__)
        if primitive is ops.global_pools:
            pooled, back = primitive(*arguments, **options)
            return tuple(-p for p in pooled), back
        return NotImplemented

    with answering(answer):
        (p,), _ = ops.global_pools(maps, ("max",))
    assert seen == ["global_pools", "global_max_pool"]
    np.testing.assert_array_equal(p, -maps.max(axis=(2, 3)))


@pytest.mark.parametrize(
    ("module", "calls"),
    [
        (npattn.PositionAttention(4), 3),
        (npattn.Residual(npattn.PositionAttention(4)), 3),
        (npattn.DualAttentionHead(8, 2), 10),
        (judge.MaskedAttention(4), 3),
    ],
)
def test_systems_within_systems_and_those_of_users_have_sites(module, calls):
    values = judge.some_values(module, batch=2, height=3, width=3)
    shift = named("conv2d: last position forgotten")
    assert sites(kernels.run_reference, [shift], module, *values) == {shift: list(range(calls))}
    right = kernels.run_reference(module, *values)
    wrong = faulty(kernels.run_reference, shift, calls - 1)(module, *values)
    assert not all(np.array_equal(wrong[name], right[name]) for name in right)


def test_arguments_come_as_the_signature_has_them_however_they_are_given():
    x, w = np.ones((1, 2, 3, 3)), np.ones((2, 2, 1, 1))
    assert completed(ops.conv2d, (x,), {"weight": w}) == (
        (x, w, None),
        {"stride": 1, "padding": 0, "dilation": 1, "groups": 1},
    )
    bias = np.array([1.0, 2.0])
    lost = named("conv2d: lost bias")
    for module in (lambda: [ops.conv2d(x, w, bias)[0]], lambda: [ops.conv2d(x, bias=bias, weight=w)[0]]):
        assert sites(run, [lost], module) == {lost: [0]}
        np.testing.assert_array_equal(faulty(run, lost, 0)(module)[0], ops.conv2d(x, w)[0])
    assert sites(run, [lost], lambda: [ops.conv2d(x, w)[0]]) == {}


ROUNDED = {
    "sigmoid: gradient: left out": ops.sigmoid,
    "softmax: sign lost": ops.softmax,
    "resize_bilinear: other corners": lambda x: ops.resize_bilinear(x, (5, 5)),
    "relu: left out": ops.relu,
}


@pytest.mark.parametrize("name", ROUNDED)
def test_faults_stand_in_what_rounding_arrays_compute_in_their_own_way(name):
    draws = np.random.RandomState(0).standard_normal((2, 2, 3, 3))

    def module(x):
        y, back = ROUNDED[name](x)
        return y, back(np.ones_like(y))

    x = Rounding(FORMATS["bfloat16"]).array(draws)
    right, wrong = module(x), faulty(run, named(name), 0)(module, x)
    assert all(type(a) is type(b) for a, b in zip(wrong, right, strict=True))
    assert not equal(wrong, right)
    assert sites(run, [named(name)], module, x) == {named(name): [0]}


def test_faults_compute_in_the_kind_of_numbers_they_are_given():
    left = set(FAULTS)
    for key in judge.SYSTEMS:
        for module in [*judge.modules_of(key), *(module for module, *_ in judge.held_out_cases(key))]:
            drawn = judge.some_values(module, batch=2, height=5, width=4)
            drawn = [{name: a.astype(np.float32) for name, a in arrays.items()} for arrays in drawn]
            with np.errstate(all="ignore"):
                places = sites(kernels.run_reference, left, module, *drawn)
                for found, (site, *_) in places.items():
                    results = faulty(kernels.run_reference, found, site)(module, *drawn)
                    assert {value.dtype for value in results.values()} == {np.dtype("f4")}, f"{found} in {module}"
            left -= set(places)
    assert len(left) < len(FAULTS) / 10  # those of ties, of large values and of sizes of their own


def test_a_fault_stands_in_one_context_alone():
    found = []

    def module(x):
        thread = threading.Thread(target=lambda: found.append(ops.relu(x)[0]))
        thread.start()
        thread.join()
        return [ops.relu(x)[0]]

    assert np.array_equal(faulty(run, named("relu: left out"), 0)(module, X)[0], X)
    assert np.array_equal(found[0], ops.relu(X)[0])


def test_a_fault_is_gone_after_an_error():
    def module(x):
        ops.relu(x)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        faulty(run, named("relu: left out"), 1)(module, X)
    assert np.array_equal(ops.relu(X)[0], [[0, 2, 0]])


# What mistakes change


def calls_of_systems():
    """Yield primitives with arguments as small systems call them."""
    for system in judge.SYSTEMS.values():
        seen = {}

        def watch(primitive, arguments, options, seen=seen):
            seen.setdefault(primitive, completed(primitive, arguments, options))
            return NotImplemented

        module = system.example()
        params, inputs = generic_values(module, batch=2, height=5, width=4)
        with answering(watch):
            module(params, *inputs.values())
        yield from ((primitive, *given) for primitive, given in seen.items())


def flat(value):
    return [a for item in value for a in flat(item)] if isinstance(value, tuple) else [value]


def upstream_gradients(primitive, value):
    """Return ones to give backward: for what of the value it takes a gradient, and as it takes it."""
    if primitive in {ops.batch_norm, ops.top}:
        value = value[0]
    ones = [np.ones_like(a) for a in flat(value)]
    return (
        ones
        if primitive in {ops.affinity_sums, ops.masked_attention} or not isinstance(value, tuple)
        else [tuple(ones)]
    )


@pytest.mark.parametrize("way", ["forward", "backward"])
def test_a_fault_of_one_way_leaves_the_other_right(way):
    tried = set()
    for primitive, arguments, options in calls_of_systems():
        right, back = primitive(*arguments, **options)
        dy = upstream_gradients(primitive, right)
        expected = flat(right), [a for a in flat(back(*dy)) if a is not None]
        for f in FAULTS:
            if f.primitive != primitive.__name__ or f.way != way or not f.when(*arguments, **options):
                continue
            with np.errstate(all="ignore"):
                wrong, back_wrong = f.apply(primitive, *arguments, **options)
                found = flat(wrong), [a for a in flat(back_wrong(*dy)) if a is not None]
            assert [[a.shape for a in each] for each in found] == [[a.shape for a in each] for each in expected], f
            other = 0 if way == "backward" else 1
            assert equal(found[other], expected[other]), f
            tried.add(f)
    assert len(tried) > 80


def test_of_several_gradients_those_named_alone_are_made_from_what_is_wrong():
    x, w = np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]])
    dz = np.array([[1.0]])
    for made, wrong in (
        (upstream("linear", (1,), "", lambda dy, *_: 2 * dy), [(1, 2 * x)]),
        (gradient("linear", 0, "", lambda g, *_: g + 1), [(0, w + 1)]),
        (argument("linear", 1, "", lambda x, w, b: 3 * w, way="backward", of=(0,)), [(0, 3 * w)]),
        (argument("linear", 0, "", lambda x, w, b: 3 * x, way="backward"), [(1, 3 * x)]),
        (instead("linear", "", lambda linear, x, w, b: linear(-x, -w, b), way="backward"), [(0, -w), (1, -x)]),
        (instead("linear", "", lambda linear, x, w, b: linear(-x, -w, b), way="backward", of=(1,)), [(1, -x)]),
    ):
        value, back = made.apply(ops.linear, x, w, None)
        assert value == [[11]]
        expected = [w, x]
        for i, a in wrong:
            expected[i] = a
        assert equal(back(dz)[:2], expected)


def test_forward_and_both_ways_differ_in_the_gradients():
    x, w, dz = np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]]), np.array([[1.0]])
    for way, dw in (("forward", x), ("both", 3 * x)):
        wrong, back = argument("linear", 0, "", lambda x, w, b: 3 * x, way=way).apply(ops.linear, x, w, None)
        assert wrong == [[33]]
        assert np.array_equal(back(dz)[1], dw)
    wrong, back = value("linear", "", lambda z, *_: -z).apply(ops.linear, x, w, None)
    assert wrong == [[-11]]
    assert np.array_equal(back(dz)[1], x)


def test_a_wrong_gradient_is_added_where_it_is_to_be_accumulated():
    maps = np.ones((1, 1, 2, 2))
    _, back = named("global_max_pool: gradient: to all").apply(ops.global_max_pool, maps)
    assert np.array_equal(back(np.array([[2.0]]), accumulate_into=np.full_like(maps, 3)), np.full_like(maps, 5))


def test_a_backward_fault_says_so_in_its_name():
    assert str(mistake("relu", "left out", "backward", None)) == "relu: gradient: left out"
    assert str(mistake("", "left out", "both", None)) == "pass: left out"
    assert all(f.name.startswith("gradient: ") == (f.way == "backward") for f in FAULTS)


def test_held_out_faults_come_after_those_tuned_on():
    marks = [f in HELD_OUT for f in FAULTS]
    assert marks == sorted(marks)
    assert all(not f.primitive or f.primitive in ops.__all__ for f in FAULTS)


# Families

FAMILIES = [f for f in vars(families).values() if isinstance(f, families.Family)]


@settings(max_examples=25)
@given(shape=st.tuples(*(st.integers(1, most) for most in (3, 3, 9, 9))), seed=seeds)
def test_a_family_changes_a_copy_of_an_array_where_it_can(shape, seed):
    for family in (*FAMILIES, *passes.RESULTS, *passes.RESULTS_HELD_OUT):
        a = np.random.RandomState(seed).standard_normal(shape)
        before = a.copy()
        if family.when(a):
            changed = family.change(a)
            assert changed.shape == a.shape, family
            assert not np.array_equal(changed, a), family
        assert np.array_equal(a, before), family


@given(n=st.integers(1, 70))
def test_a_tail_is_what_whole_tiles_leave_over(n):
    a = np.arange(1.0, n + 1)
    left = arrays.without_tail(a, 1)
    assert left.sum() == a[: n - n % arrays.TILE].sum()
    assert arrays.padded(n) % arrays.TILE == 0
    assert 0 <= arrays.padded(n) - n < arrays.TILE
    assert arrays.has_tail(n) == (0 < np.count_nonzero(left) < n)


@given(n=st.integers(16, 70))
def test_the_last_of_a_tile_is_read_from_its_neighbour(n):
    a = np.arange(float(n)).reshape(1, n)
    moved = np.flatnonzero(arrays.from_neighbour(a, 1) != a)
    assert moved.tolist() == list(range(15, n, 16))
    assert np.array_equal(arrays.from_neighbour(a, 1)[0, moved], moved - 1)


@pytest.mark.parametrize(
    ("words", "rows", "columns"),
    [
        ("row further on", (0, 2), (1, 1)),
        ("column further back", (1, 1), (2, 0)),
        ("row and column further on", (0, 2), (0, 2)),
    ],
)
def test_padding_is_shifted_along_one_axis_or_both(words, rows, columns):
    x, weight = (
        np.random.RandomState(0).standard_normal((2, 3, 6, 5)),
        np.random.RandomState(1).standard_normal((4, 3, 3, 3)),
    )
    shifted = next(
        one for one in MISTAKES if one.name == f"padding shifted by one: reads a {words}" and one.way == "carried"
    )
    given, options = completed(ops.conv2d, (x, weight), {"padding": 1})
    y, _ = shifted.apply(ops.conv2d, *given, **options)
    assert np.allclose(y, ops.conv2d(np.pad(x, ((0, 0), (0, 0), rows, columns)), weight)[0])
