import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import npattn
from npattn import ops
from npattn.ops.attention import average_slope
from npattn.ops.context import replacing
from npattn.oracle import generic_values
from npattn.oracle.budgets import Given, exact_results, named_results, run_on
from npattn.oracle.formats import FLOAT64, FORMATS, representable, ulp
from npattn.oracle.primitives import PRIMITIVE_SYSTEMS
from npattn.oracle.rounding import Rounding, RoundingArray, Selections
from tests.naming import for_each
from tests.strategies import SYSTEMS, cases, seeds

every_format = pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
STORED = [format for name, format in FORMATS.items() if name != "tf32"]  # whose operands are no shorter


def given_values(module, params, inputs, format, seed=0, *, sizes=None):
    """What a module is given, in a format, with a random upstream gradient; without sizes, those of its map."""
    batch, *_, height, width = sizes or next(iter(inputs.values())).shape
    random = np.random.RandomState(seed)
    upstream = {name: random.standard_normal(s) for name, s in module.output_shapes(batch, height, width).items()}
    return Given(params, inputs, upstream).each(lambda a: representable(a, format))


@for_each(("place", "format"), enumerate(STORED))
@pytest.mark.parametrize(("turn", "system"), list(enumerate(SYSTEMS)), ids=lambda one: getattr(one, "key", one))
def test_every_result_of_every_system_is_a_number_of_the_format(turn, system, place, format):
    """With errors in every other format, and without a seed in the others; of the next system the other way round."""
    module = system.example()
    values = given_values(module, *generic_values(module), format)
    found = run_on(Rounding(format, (1, None)[(turn + place) % 2]), module, values)
    for name, a in found.items():
        np.testing.assert_array_equal(a, representable(a.astype(np.float64), format), err_msg=name)


@given(case=cases(), name=st.sampled_from(["bfloat16", "float16", "float32", "tf32"]), seed=seeds)
@settings(max_examples=40)
def test_rounding_runs_give_every_result_its_shape_and_come_near_the_exact_one(case, name, seed):
    module, params, inputs = case
    format = FORMATS[name]
    values = given_values(module, params, inputs, format)
    exact, found = (run_on(rounding, module, values) for rounding in (Rounding(FLOAT64), Rounding(format, seed)))
    assert {name: a.shape for name, a in found.items()} == {name: a.shape for name, a in exact.items()}
    for key, a in exact.items():
        if key.startswith("output"):
            finite = np.isfinite(a)
            np.testing.assert_array_equal(found[key][~finite], a[~finite], err_msg=key)
            largest = np.max(np.abs(a[finite]), initial=1)
            atol = 2000 * 2.0**-format.operand_precision * largest
            np.testing.assert_allclose(found[key][finite], a[finite], rtol=0, atol=atol, err_msg=key)


@for_each("key", PRIMITIVE_SYSTEMS)
def test_in_float32_every_result_of_a_primitive_strays_from_the_exact_one_by_roundings_alone(key):
    module = PRIMITIVE_SYSTEMS[key].example()
    values = given_values(module, *generic_values(module), FLOAT64, sizes=(2, 5, 4))
    exact = exact_results(module, values)
    for seed in range(2):
        for name, a in run_on(Rounding(FORMATS["float32"], [0, seed]), module, values).items():
            size = np.sqrt(np.mean(np.square(exact[name])))
            np.testing.assert_allclose(a, exact[name], rtol=0, atol=1e-4 * max(size, 1), err_msg=name)


@for_each("system", SYSTEMS)
def test_without_rounding_the_results_are_those_of_plain_arrays(system):
    module = system.example()
    values = given_values(module, *generic_values(module), FLOAT64)
    expected = named_results(module, values)
    for name, a in run_on(Rounding(FLOAT64), module, values).items():
        floor = 1e-12 * max(np.abs(g).max() for g in expected.values())
        np.testing.assert_allclose(a, expected[name], rtol=1e-9, atol=floor, err_msg=name)


@every_format
@given(seed=seeds, scale=st.integers(-20, 20))
@settings(max_examples=20)
def test_a_number_goes_to_one_of_its_two_neighbours_and_stays_if_it_is_one(format, seed, scale):
    exact = np.ldexp(np.random.RandomState(seed).standard_normal(1000), scale)
    exact = exact[np.abs(exact) < format.largest / 2].astype(format.storage)
    rounded = Rounding(format, seed).round(exact.copy()).astype(np.float64)
    assert (np.abs(rounded - exact) < ulp(exact.astype(np.float64), format)).all()
    again = Rounding(format, seed + 1).round(rounded.astype(format.storage))
    np.testing.assert_array_equal(again, rounded)


@every_format
@for_each("value", [1.3, -0.7, 2.0**-20, 3e-5])
def test_stochastic_rounding_is_right_on_average(format, value):
    many = np.full(40_000, value, format.storage)
    exact = float(many[0])
    rounded = Rounding(format, 7).round(many).astype(np.float64)
    spread = ulp(np.array([exact]), format)[0]
    assert abs(rounded.mean() - exact) < 5 * spread / 2 / np.sqrt(many.size)


@every_format
@given(values=st.lists(st.floats(-1e5, 1e5, width=32), min_size=1))
def test_without_a_seed_numbers_go_to_the_nearest(format, values):
    stored = np.array(values, format.storage)
    expected = representable(stored.astype(np.float64), format)
    found = Rounding(format).round(stored.copy(), format.operand_precision)
    if format.name == "tf32":  # whose operands are float32's numbers near 0
        usual = np.abs(stored) >= 2.0**format.least_exponent
        found, expected = found[usual], expected[usual]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["float16", "float8_e4m3"])
def test_what_is_too_large_overflows_or_saturates_and_what_is_tiny_keeps_even_spacing(name):
    format = FORMATS[name]
    rounding = Rounding(format, 0)
    x = rounding.array(np.array([format.largest, -format.largest]))
    limit = format.largest if format.saturates else np.inf
    np.testing.assert_array_equal(np.asarray(x * 4), [limit, -limit])
    small = np.asarray(rounding.array(np.full(10_000, 1.0)) * (1.3 * format.smallest))
    assert set(np.unique(small)) == {np.float32(format.smallest), np.float32(2 * format.smallest)}
    assert small.mean() == pytest.approx(1.3 * format.smallest, rel=0.05)


def test_the_same_seed_gives_the_same_errors_and_another_one_others():
    module = SYSTEMS[0].example()
    values = given_values(module, *generic_values(module), FORMATS["bfloat16"])
    one, same, other = (run_on(Rounding(FORMATS["bfloat16"], seed), module, values) for seed in (3, 3, 4))
    assert all((one[name] == same[name]).all() for name in one)
    assert any((one[name] != other[name]).any() for name in one)


@pytest.mark.parametrize("count", [64, 1024, 4096])
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_modelled_accumulation_errors_are_those_of_adding_one_by_one_in_float32(count, offset):
    terms = (np.random.RandomState(0).standard_normal((1000, count)) + offset).astype(np.float32)
    exact = terms.sum(axis=1, dtype=np.float64)
    real = np.add.accumulate(terms, axis=1)[:, -1] - exact
    modelled = np.asarray(Rounding(FORMATS["float32"], 1).array(terms).sum(axis=1)) - exact
    assert 1 < np.sqrt(np.mean(modelled**2) / np.mean(real**2)) < 2


@pytest.mark.parametrize("rest", [0.002, 0.02])
def test_a_sum_whose_largest_term_comes_first_errs_no_more_than_modelled(rest):
    random = np.random.RandomState(0)
    rows = np.hstack([np.ones((2000, 1)), np.abs(random.standard_normal((2000, 127))) * rest]).astype(np.float32)
    exact = rows.sum(axis=1, dtype=np.float64)
    real = np.add.accumulate(rows, axis=1)[:, -1] - exact
    modelled = np.asarray(Rounding(FORMATS["float32"], 1).array(rows).sum(axis=1)) - exact
    assert 1 < np.sqrt(np.mean(modelled**2) / np.mean(real**2)) < 2


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_equal_numbers_err_alike_where_asked(name):
    x = np.random.RandomState(0).choice(representable(np.array([1.3, -0.7, 3.1]), FORMATS[name]), 3000)
    for alike in (True, False):
        rounding = Rounding(FORMATS[name], 5, alike=alike)
        found = np.asarray(rounding.array(x) / 7)
        assert (len(np.unique(found)) == 3) == alike
    runs = [np.asarray(Rounding(FORMATS[name], seed, alike=True).array(x) / 7, np.float64) for seed in range(400)]
    unit = np.abs(x / 7).max() * FORMATS[name].unit_roundoff
    assert np.abs(np.mean(runs, axis=0) - x / 7).max() < 0.3 * unit


def test_a_sum_that_cancels_errs_as_its_terms_do():
    random = np.random.RandomState(0)
    terms = random.standard_normal((500, 512)).astype(np.float32)
    terms = np.concatenate([terms, -terms], axis=1)[:, random.permutation(1024)]
    real = np.add.accumulate(terms, axis=1)[:, -1]
    modelled = np.asarray(Rounding(FORMATS["float32"], 1).array(terms).sum(axis=1))
    assert 0.7 < np.sqrt(np.mean(modelled**2) / np.mean(real**2)) < 2


def test_products_err_alike_by_whatever_function_they_are_taken():
    random = np.random.RandomState(0)
    a, b = random.standard_normal((50, 900)), random.standard_normal((900, 60))
    rounding = Rounding(FORMATS["float32"], 1)
    x, y = rounding.array(a), rounding.array(b)
    products = [x @ y, np.matmul(x, y), np.dot(x, y), np.einsum("ij,jk->ik", x, y)]
    spreads = []
    for product in products:
        assert type(product) is RoundingArray
        spreads.append(np.sqrt(np.mean((np.asarray(product) - np.asarray(x).astype(float) @ np.asarray(y)) ** 2)))
    assert max(spreads) < 1.5 * min(spreads)


@pytest.mark.parametrize("take", [lambda x, y: (x * y).sum(axis=1), lambda x, y: np.einsum("ij,ij->i", x, y)])
def test_products_of_maps_element_by_element_are_rounded_before_they_are_added(take):
    rounding = Rounding(FORMATS["bfloat16"], 1)
    one = representable(np.random.RandomState(0).standard_normal((300, 50)), FORMATS["bfloat16"])
    x, y = rounding.array(np.concatenate([one, -one], axis=1)), rounding.array(np.full((300, 100), 1.296875))
    # The exact sum is 0, so neither it nor the accumulator rounds: what is left are the errors of the products.
    expected = np.sqrt(100 / 6) * 2.0**-8
    assert 0.5 < np.std(np.asarray(take(x, y))) / expected < 2


def test_functions_that_would_compute_without_rounding_are_refused_by_name():
    x = Rounding(FORMATS["bfloat16"], 0).array(np.eye(2))
    for function in (np.outer, np.inner, np.vdot):
        with pytest.raises(TypeError, match=f"{function.__name__} computes without rounding"):
            function(x, x)


def test_operands_of_products_alone_are_shortened_in_tf32():
    for seed in (None, 0):
        rounding = Rounding(FORMATS["tf32"], seed)
        x = rounding.array(np.array([[1 + 2.0**-15]]))
        assert float((x + 0)[0, 0]) == 1 + 2.0**-15
        one = rounding.array(np.ones((1, 1)))
        for product in (x @ one, np.einsum("ij,jk->ik", x, one)):
            error = float(product[0, 0]) - float(x[0, 0])
            assert 2.0**-20 < abs(error) < 2.0**-10


def test_selections_and_copies_make_no_error():
    x = Rounding(FORMATS["bfloat16"], 0).array(representable(np.random.RandomState(0).standard_normal((5, 6)), FLOAT64))
    rounded = np.asarray(x * 1)
    x = Rounding(FORMATS["bfloat16"], 0).array(rounded)
    for found, expected in (
        (x.max(axis=1), rounded.max(axis=1)),
        (np.maximum(x, 0), np.maximum(rounded, 0)),
        (np.where(x > 0, x, 0), np.where(rounded > 0, rounded, 0)),
        (-x, -rounded),
        (np.concatenate([x, x]), np.concatenate([rounded, rounded])),
        (np.stack([x, x]), np.stack([rounded, rounded])),
        (np.take_along_axis(x, x.argsort(axis=1), 1), np.sort(rounded, axis=1)),
        (x[2:4, ::2].T.reshape(2, -1), rounded[2:4, ::2].T.reshape(2, -1)),
        (np.zeros_like(x), np.zeros_like(rounded)),
        (x * 4, rounded * 4),
    ):
        assert type(found) is RoundingArray
        assert found.rounding is x.rounding
        np.testing.assert_array_equal(np.asarray(found), expected)
    assert type(x > 0) is np.ndarray
    assert type(x.argmax(axis=1)) is np.ndarray


def test_arrays_in_place_stay_rounded_and_are_written_where_they_stand():
    x = Rounding(FORMATS["float16"], 0).array(np.ones(1000))
    part = x[::2]
    part += 1e-4
    assert set(np.unique(np.asarray(x)[::2])) == {1, np.float32(1 + 2.0**-10)}
    assert (np.asarray(x)[1::2] == 1).all()


def test_integers_and_booleans_are_counted_exactly():
    x = Rounding(FORMATS["bfloat16"], 0).array(np.zeros(3))
    counts = np.arange(1000, 1003, like=x) + 1
    np.testing.assert_array_equal(np.asarray(counts), [1001, 1002, 1003])
    assert (x == 0).sum() == 3


class Recording(Selections):
    def __init__(self):
        self.seen = []

    def compare(self, left, right, ordering):
        self.seen.append("compare")
        return super().compare(left, right, ordering)

    def winners(self, values, axis):
        self.seen.append("winners")
        return super().winners(values, axis)

    def order(self, values, axis):
        self.seen.append("order")
        return super().order(values, axis)


@for_each(
    ("decide", "kind"),
    [
        (ops.relu, "compare"),
        (lambda x: x < 1, "compare"),
        (lambda x: ops.max_pool(x, axis=1), "winners"),
        (lambda x: ops.max_pool(x, axis=3), "winners"),
        (lambda x: x.argmax(axis=2), "winners"),
        (np.argmax, "winners"),
        (lambda x: np.argsort(x, axis=1), "order"),
        (lambda x: x.argsort(), "order"),
        (lambda x: x == 0, None),
        (lambda x: x.max(axis=1), None),
        (np.isfinite, None),
    ],
)
def test_decisions_are_left_to_the_selections(decide, kind):
    selections = Recording()
    x = np.random.RandomState(0).standard_normal((2, 3, 4, 5))
    decide(Rounding(FLOAT64, selections=selections).array(x))
    assert set(selections.seen) == ({kind} if kind else set())


def test_the_slope_of_a_saturated_gate_errs_as_that_of_a_kernel_that_keeps_the_gate_alone():
    torch = pytest.importorskip("torch")
    z = np.full(2000, 7.0)
    leaf = torch.tensor(z).bfloat16().requires_grad_()
    torch.sigmoid(leaf).backward(torch.ones_like(leaf))
    real = float(leaf.grad[0])
    _, backward = ops.sigmoid(Rounding(FORMATS["bfloat16"], 0).array(z))
    found = np.asarray(backward(np.ones_like(np.asarray(z))))
    exact = np.exp(-7) / (1 + np.exp(-7)) ** 2
    assert found.std() > abs(real - exact) > 100 * 2.0**-9 * exact


def test_primitives_that_rounding_arrays_compute_themselves_are_shown_to_those_who_watch():
    x, seen = Rounding(FORMATS["bfloat16"]).array(np.ones((1, 1, 2, 2))), []
    with replacing(lambda primitive, *_: seen.append(primitive.__name__) or NotImplemented):
        y, _ = ops.sigmoid(x)
        np.einsum("bcij->bc", x)
    assert seen == ["sigmoid"]
    assert type(y) is RoundingArray
    with replacing(lambda primitive, *_: ("answer", None)):
        assert ops.sigmoid(x)[0] == "answer"


def test_resizing_errs_as_a_kernel_that_computes_its_weights_in_float32():
    torch = pytest.importorskip("torch")
    x = np.random.RandomState(0).standard_normal((4, 3, 40, 30)).astype(np.float32)
    theirs = torch.nn.functional.interpolate(torch.tensor(x), (61, 47), mode="bilinear", align_corners=True)
    exact, _ = ops.resize_bilinear(x.astype(np.float64), (61, 47), True)
    ours, _ = ops.resize_bilinear(Rounding(FORMATS["float32"], 1).array(x), (61, 47), True)
    real, modelled = (np.sqrt(np.mean((np.asarray(a, np.float64) - exact) ** 2)) for a in (theirs, ours))
    assert real < 2 * modelled < 10 * real
    assert modelled > 3 * np.sqrt(np.mean((ops.resize_bilinear(x, (61, 47), True)[0] - exact) ** 2))


def test_a_saturated_softmaxs_gradient_errs_as_that_of_a_kernel_that_keeps_the_weights_in_the_format():
    torch = pytest.importorskip("torch")
    logits, dy = np.array([[12.0, 0.0, 0.0]]), np.array([[1.0, 0.3, -0.6]])
    leaf = torch.tensor(logits).half().requires_grad_()
    torch.softmax(leaf, 1).backward(torch.tensor(dy).half())
    exact = ops.softmax(logits)[1](dy)
    real = np.abs(leaf.grad.numpy() - exact)[0, 0]
    found = []
    for seed in range(40):
        rounding = Rounding(FORMATS["float16"], seed)
        found.append(
            np.asarray(ops.softmax(rounding.array(logits))[1](rounding.array(dy)), np.float64)[0, 0] - exact[0, 0]
        )
    assert real > abs(exact[0, 0]) / 3
    assert np.sqrt(np.mean(np.square(found))) > real / 2


def rounding_run(compute, *arrays, format="bfloat16", seed=0):
    """Compute on rounding arrays; return plain ones."""
    rounding = Rounding(FORMATS[format], seed)
    with np.errstate(all="ignore"):
        return np.asarray(compute(*(rounding.array(a) for a in arrays)))


hidden = np.arange(6)[None, :] > np.arange(6)[:, None]
LEAST = float(np.finfo(np.float32).min)


@functools.cache
def masked_softmax_runs(format, low, by_hand):
    """A softmax's weights and gradient, of runs with random rounding, where `low` is added to hide positions."""
    random = np.random.RandomState(0)
    z, ds = (representable(random.standard_normal((6, 6)), FORMATS[format]) for _ in range(2))

    def attend(z, ds):
        z = z + np.where(hidden, low, 0)
        if not by_hand:
            s, backward = ops.softmax(z)
            return np.stack([s, backward(ds)])
        e = np.exp(z - z.max(axis=-1, keepdims=True))
        s = e / e.sum(axis=-1, keepdims=True)
        return np.stack([s, s * (ds - (s * ds).sum(axis=-1, keepdims=True))])

    return np.array([rounding_run(attend, z, ds, format=format, seed=i) for i in range(30)])


@pytest.mark.parametrize("format", ["bfloat16", "float16", "float32", "tf32", "float8_e4m3"])
@for_each("low", [-np.inf, -65504.0, -1e4, -1e9, LEAST])
@for_each("by_hand", [False, True])
def test_what_masks_logits_before_a_softmax_makes_no_error(by_hand, low, format):
    """Every way to hide positions gives the errors of a kernel that selects, forward and backward."""
    found, selected = (masked_softmax_runs(format, value, by_hand) for value in (low, -np.inf))
    assert np.isfinite(found).all()
    assert not found[..., hidden].any()
    errors, expected = (np.std(runs, axis=0)[:, ~hidden] for runs in (found, selected))
    np.testing.assert_allclose(np.sqrt(np.mean(errors**2, axis=1)), np.sqrt(np.mean(expected**2, axis=1)), rtol=0.25)


@for_each(
    "compute",
    [
        lambda x: x * np.sqrt(2.0),
        lambda x: np.full(x.shape, 1.1) * x,
        lambda x: np.where(np.arange(x.size) % 2 > 0, np.float64(1.1), x) * x,
        lambda x: x / x.astype(np.float64).sum(),
        lambda x: np.einsum("i,i->i", x, np.full(x.shape, 1.1)),
        lambda x: (x[None] @ np.diag(np.full(x.size, 1.1)))[0],
        lambda x: np.add(x, 1.1, dtype=np.float64),
    ],
)
def test_constants_of_another_dtype_lift_nothing_out_of_the_format(compute):
    x = representable(np.linspace(1, 2, 50), FORMATS["bfloat16"])
    found = [rounding_run(compute, x, seed=seed) for seed in range(3)]
    np.testing.assert_array_equal(found[0], representable(found[0].astype(float), FORMATS["bfloat16"]))
    assert (found[0] != found[1]).any()
    np.testing.assert_allclose(found[0], compute(x), rtol=2**-6)


def test_comparisons_with_constants_of_another_dtype_are_decisions():
    decided = []

    class Watch(Selections):
        def compare(self, left, right, ordering):
            decided.append(ordering)
            return super().compare(left, right, ordering)

    x = Rounding(FORMATS["bfloat16"], selections=Watch()).array(np.ones(3))
    assert not (x > np.full(3, 1.0)).any()
    assert (x <= np.float64(1)).all()
    assert decided == [np.greater, np.less_equal]


def test_infinite_terms_and_sums_stay_what_they_are():
    x = np.array([[1.0, -np.inf, 2.0], [np.inf, 1.0, 1.0]])
    for compute in (lambda x: x.sum(axis=1), lambda x: x @ np.ones((3, 1)), lambda x: np.einsum("ij->i", x)):
        for seed in range(5):
            np.testing.assert_array_equal(rounding_run(compute, x, seed=seed).ravel(), [-np.inf, np.inf])


@pytest.mark.parametrize(
    "combine",
    [
        lambda x, constant: np.where(constant > 0, constant, x),
        lambda x, constant: np.concatenate([x, constant]),
        lambda x, constant: np.stack([constant, x]),
        lambda x, constant: np.full_like(x, 2.0, dtype=constant.dtype),
    ],
    ids=["where", "concatenate", "stack", "full_like"],
)
@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_what_is_made_of_a_constant_in_float64_is_rounded_too(combine, name):
    x = Rounding(FORMATS[name], 0).array(np.ones((2, 3)))
    made = combine(x, np.ones((2, 3)))
    assert isinstance(made, RoundingArray)
    assert made.dtype == x.dtype
    assert not np.array_equal(np.asarray(made) / 3, np.asarray(made / 3))


def test_softmin_errs_as_released_code_that_differentiates_through_the_maximum():
    """The largest logit has no weight; its gradient is the rounding of a sum that is 0."""
    x, dy = np.array([[64.0, 1.0, 0.5, 0.0]] * 3), np.array([[1.0, 0.5, -1.0, 2.0]] * 3)
    found = np.array([rounding_run(lambda x, dy: ops.softmin(x)[1](dy), x, dy, seed=seed) for seed in range(50)])
    exact = ops.softmin(x)[1](dy)
    assert abs(exact[0, 0]) < 1e-20
    spread = np.sqrt(np.mean((found - exact) ** 2, axis=0))[0]
    assert spread[0] > 0.2 * FORMATS["bfloat16"].unit_roundoff * np.abs(exact).max()
    np.testing.assert_allclose(
        rounding_run(lambda x, dy: ops.softmin(x)[1](dy), x, dy, format="float32"), exact, atol=1e-6
    )


def test_in_float32_softmax_errs_as_the_references_own_gradient_does_too():
    """With one dy taken off all, the sum is far from 0 where weights are spread; its rounding moves every dx."""
    random = np.random.RandomState(0)
    x, dy = (a.astype(np.float32) for a in (0.1 * random.standard_normal((1, 400)), random.standard_normal((1, 400))))
    x[0, 7], dy[0, 7] = 0.5, 8.0
    exact = ops.softmax(x.astype(float))[1](dy.astype(float))
    s = ops.softmax(x)[0]
    total = np.add.accumulate((s * (dy - dy[:, 7:8]))[:, ::-1], axis=1)[:, -1:]  # one by one, backwards
    kernel = s * (dy - dy[:, 7:8] - total)
    runs = [rounding_run(lambda x, dy: ops.softmax(x)[1](dy), x, dy, format="float32", seed=i) for i in range(40)]
    spread = np.sqrt(np.mean(np.square(np.array(runs) - exact), axis=0))
    assert np.median(np.abs(kernel - exact) / spread) < 4


@pytest.mark.parametrize("value", [3.0, 300.0])
def test_logits_that_lie_far_apart_in_the_format_go_to_the_side_by_a_whole_step(value):
    z = np.array([[value, value, 0.0]])
    found = np.array([rounding_run(lambda z: z - z.max(axis=1, keepdims=True), z, seed=seed)[0] for seed in range(60)])
    step = float(ulp(np.array(value), FORMATS["bfloat16"]))
    assert set(np.unique(np.diff(found[:, :2]))) == ({0} if step < 0.25 else {-2 * step, 0, 2 * step})
    kept = rounding_run(lambda z: z - z.min(axis=1, keepdims=True), z)  # which comes before no softmax
    np.testing.assert_array_equal(kept, z)


def test_within_a_fused_backward_pass_only_results_are_rounded():
    module = npattn.SqueezeExcitation(8, 2)
    params, inputs = generic_values(module, height=3, width=3)
    values = given_values(module, params, inputs, FORMATS["bfloat16"])
    exact = named_results(module, values)
    plain, fused = (
        [run_on(Rounding(FORMATS["bfloat16"], seed), module, values, fused=kind) for seed in range(40)]
        for kind in (False, True)
    )
    for name, value in exact.items():
        np.testing.assert_array_equal(fused[0][name], representable(fused[0][name], FORMATS["bfloat16"]))
        errors = [np.sqrt(np.mean([(run[name] - value) ** 2 for run in runs])) for runs in (plain, fused)]
        assert errors[1] < 1.1 * errors[0], name
        assert not name.endswith(".grad") or errors[1] < 0.97 * errors[0], name


def test_half_of_eight_runs_at_least_take_a_saturated_softmax_s_gradient_as_most_kernels_do():
    x, dy = np.array([0.0, -16.66]), np.array([-1.0, 70.0])
    found = []
    for number in range(1, 9):
        rounding = Rounding(FORMATS["float32"], [3, number])
        _, backward = ops.softmax(rounding.array(x))
        found.append(abs(float(np.sum(backward(rounding.array(dy))))))
    assert sum(error > 1e-9 for error in found) >= 4


def masked(*qkv):
    (o, _), backward = ops.masked_attention(*qkv)
    return o, backward


@for_each("attention", [ops.dot_product_attention, masked])
def test_half_of_eight_runs_keep_the_average_slope_of_a_lone_key_in_float32_as_most_kernels_do(attention):
    """Rounded as the slope is, it cancels; else what the slope has lost is left."""
    v, do = np.array([[4.0], [2.0**-12]]), np.ones((2, 1))  # ds is a sixteenth of a step from 4
    left = []
    for number in range(8):
        rounding = Rounding(FORMATS["float16"], [0, number])
        _, backward = attention(*map(rounding.array, (np.ones((1, 1)), np.ones((1, 1)), v)))
        left.append(np.asarray(backward(rounding.array(do))[0]).any())
    assert sum(left) >= 4


# Of one weight, and of two channels whose terms cancel: the weight's gradient is 0, what it is the sum of is not.
ONE, TERMS, UPSTREAM = np.ones((1, 1)), np.array([[1000.0], [-1000.0]]), np.ones((2, 1))


def lone_weight(rounding):
    _, backward = ops.softmax(rounding.array(ONE))
    return backward(rounding.array(ONE))


def lone_row_of_a_product(rounding):
    y, back_softmax = ops.softmax(rounding.array(ONE))
    _, back_product = ops.matmul(y, rounding.array(TERMS.T))
    return back_softmax(back_product(rounding.array(UPSTREAM.T))[0])


def lone_column_of_a_product(rounding):
    y, back_softmax = ops.softmax(rounding.array(ONE[0]))
    _, back_product = ops.matmul(rounding.array(TERMS), y[:, None])
    return back_softmax(back_product(rounding.array(UPSTREAM))[1][:, 0])


def lone_query_channel(rounding, which=0):
    made = [ops.softmax(rounding.array(ONE), axis=axis) for axis in (-2, -1)]
    _, back = ops.linear_attention(*(y for y, _ in made), rounding.array(TERMS))
    return made[which][1](back(rounding.array(UPSTREAM))[which])


def lone_key_of_linear_attention(rounding):
    return lone_query_channel(rounding, 1)


def lone_position(rounding):
    maps = (rounding.array(a[..., None]) for a in (ONE, ONE, TERMS))
    _, backward = ops.criss_cross_attention(*maps)
    return backward(rounding.array(UPSTREAM[..., None]))[0]


def lone_memory(rounding):
    y, back_sum = ops.sum_normalize(rounding.array(ONE[..., None, None]), axis=1)
    _, back_conv = ops.conv2d(y, rounding.array(TERMS[..., None, None]))
    return back_sum(back_conv(rounding.array(UPSTREAM.reshape(1, 2, 1, 1)))[0])


LONE = [
    lone_weight,
    lone_row_of_a_product,
    lone_column_of_a_product,
    lone_query_channel,
    lone_key_of_linear_attention,
    lone_position,
    lone_memory,
]


@for_each("gradient", LONE)
def test_most_runs_leave_something_of_a_lone_weight_s_gradient_whose_average_was_made_apart(gradient):
    """Of what the weight has gathered, if a product knows it; else by an error that may be lost in rounding."""
    runs = [gradient(Rounding(FORMATS["float16"], [0, number])) for number in range(8)]
    assert sum(np.asarray(found).any() for found in runs) >= (4 if gradient is lone_weight else 7)


def test_in_tf32_all_runs_make_an_average_apart_of_operands_that_are_shortened():
    for number in range(8):
        rounding = Rounding(FORMATS["tf32"], [0, number])
        y, back_softmax = ops.softmax(rounding.array(ONE))
        _, back_product = ops.matmul(y, rounding.array(ONE / 3))
        left = back_softmax(back_product(rounding.array(ONE / 3))[0])
        assert abs(np.asarray(left)).item() > 2.0**-20


@given(seed=seeds)
@settings(max_examples=10)
def test_what_a_product_tells_of_another_axis_is_not_taken_for_a_softmax_s_average(seed):
    """The product sums over channels, the softmax over as many positions: both averages have the same shape."""
    random = np.random.RandomState(seed)
    x, a = (random.standard_normal(shape) for shape in ((4, 4), (1, 4)))
    y, back_softmax = ops.softmax(x)
    exact = back_softmax(ops.matmul(a, y)[1](a)[1])
    for number in range(8):
        rounding = Rounding(FORMATS["float32"], [seed, number])
        y, back_softmax = ops.softmax(rounding.array(x))
        _, back_product = ops.matmul(rounding.array(a), y)
        np.testing.assert_allclose(back_softmax(back_product(rounding.array(a))[1]), exact, atol=1e-5)


def test_an_average_outlives_no_operation_in_place():
    rounding = Rounding(FORMATS["bfloat16"], [0, 1])
    a, b = (rounding.array(np.ones((2, 2))) for _ in range(2))
    da, _ = ops.matmul(a, b)[1](a)
    assert da.average is not None and da.T.average is not None
    assert (da + da).average is None
    da += da
    assert da.average is None


def test_an_average_of_slopes_errs_in_half_of_the_runs_where_all_round_what_it_is_taken_off_alike():
    """A query that sees one key: its weight's gradient, the average, is a number of the format, and never errs."""
    do, v = np.full((4, 1), 0.5), np.full((4, 1), 3.0)
    found = []
    for number in range(8):
        rounding = Rounding(FORMATS["float16"], [0, number])
        delta = average_slope(rounding.array(do), rounding.array(v))
        found.append(abs(np.asarray(delta).item() - 6) / ulp(np.array(6.0), FORMATS["float16"]))
    assert sum(error > 0.02 for error in found) >= 3
    assert max(found) < 1
