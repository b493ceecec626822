import numpy as np
import pytest

from npattn import ops
from npattn.oracle import generic_values
from npattn.oracle.formats import FORMATS
from npattn.oracle.mistakes.carrying import carried
from npattn.oracle.mistakes.catalogue import MISTAKES
from npattn.oracle.mistakes.mistake import argument, value
from npattn.oracle.mistakes.planting import answering, completed
from npattn.oracle.mistakes.taping import Taped, flat, pull
from tests.benchmarks import judge

SEPARATE = {ops.affinity_sums, ops.masked_attention, ops.batch_norm, ops.top}


def calls_of(key):
    """The first call of each primitive in a system."""
    calls = {}

    def watch(primitive, arguments, options):
        calls.setdefault(primitive, completed(primitive, arguments, options))
        return NotImplemented

    module = judge.SYSTEMS[key].example()
    params, inputs = generic_values(module, batch=2, height=5, width=4)
    with answering(watch):
        module(params, *inputs.values())
    return calls


def numbers(value, primitive):
    """The values that backward takes gradients of."""
    found = [a for a in flat(value) if np.asarray(a).dtype.kind == "f"]
    return found[:1] if primitive in {ops.batch_norm, ops.top} else found


def moved(arguments, i, by):
    return *arguments[:i], arguments[i] + by, *arguments[i + 1 :]


@pytest.mark.parametrize(
    "key", ["eca", "cbam", "coordinate", "pam", "pcm", "sdpa", "soft-hard", "linear", "lambda", "flexible-segmentation"]
)
def test_a_mistake_carried_through_backward_has_the_derivative_of_its_forward(key):
    random, tried = np.random.RandomState(0), 0
    for primitive, (arguments, options) in calls_of(key).items():
        for mistake in (m for m in MISTAKES if m.primitive == primitive.__name__ and m.way == "carried"):
            with np.errstate(all="ignore"):
                if not isinstance(arguments[0], np.ndarray) or not mistake.when(*arguments, **options):
                    continue
                if any(f" in {format}" in str(mistake) for format in FORMATS):
                    continue  # a rounding is carried back as what it rounds, and has no slope of its own
                y, backward = mistake.apply(primitive, *arguments, **options)
                found = numbers(y, primitive)
                if not all(np.isfinite(a).all() for a in found):
                    continue
                dy = [random.standard_normal(np.shape(a)) for a in found]
                together = isinstance(y, tuple) and primitive not in SEPARATE
                gradients = list(flat(backward(*([tuple(dy)] if together else dy))))
                for i, dx in enumerate(gradients[: len(arguments)]):
                    if getattr(arguments[i], "dtype", np.dtype(int)).kind != "f" or dx is None:
                        continue
                    v, step = random.standard_normal(arguments[i].shape), 1e-7
                    ends = [
                        numbers(mistake.apply(primitive, *moved(arguments, i, t * v), **options)[0], primitive)
                        for t in (step, -step)
                    ]
                    slope = sum(((a - b) * d).sum() for a, b, d in zip(*ends, dy, strict=True)) / (2 * step)
                    assert np.isclose((dx * v).sum(), slope, rtol=1e-4, atol=1e-5), f"{mistake}: of {i} in {key}"
                    tried += 1
    assert tried > 5


def test_forward_is_that_of_the_mistake_alone_and_backward_as_if_right():
    tanh = value("sigmoid", "hyperbolic tangent", lambda y, x: np.tanh(x))
    x = np.array([0.5, -1.0])
    for one, slope in ((tanh, ops.sigmoid(x)[1](np.ones(2))), (carried(tanh), 1 - np.tanh(x) ** 2)):
        y, backward = one.apply(ops.sigmoid, x)
        assert np.array_equal(y, np.tanh(x))
        assert np.allclose(backward(np.ones(2)), slope, rtol=1e-14)


def test_what_is_read_wrongly_gets_its_gradient_where_it_came_from():
    turned = carried(argument("linear", 0, "reversed", lambda x, w, b: x[:, ::-1].copy()))
    x, w, dz = np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]]), np.array([[1.0]])
    z, backward = turned.apply(ops.linear, x, w, None)
    dx, dw, dbias = backward(dz)
    assert z == [[10]]
    assert np.array_equal(dx, [[4.0, 3.0]])
    assert np.array_equal(dw, [[2.0, 1.0]])
    assert dbias is None


def test_a_taped_array_remembers_parts_that_are_written():
    x, y = Taped(np.array([1.0, 2.0, 3.0])), Taped(np.array([5.0]))
    changed = x.copy()
    changed[1:2] = y * y
    changed[2] = 0
    dx, dy = pull([((changed * changed).sum(), np.array(1.0))], [x, y])
    assert np.array_equal(dx, [2.0, 0.0, 0.0])
    assert np.array_equal(dy, [2 * 25 * 10.0])


@pytest.mark.parametrize("function", [np.tril, np.frexp, np.sin], ids=lambda one: one.__name__)
def test_a_function_whose_derivative_is_not_known_loses_none_unseen(function):
    with pytest.raises(TypeError, match=f"derivative of numpy.{function.__name__} is not known"):
        function(Taped(np.ones((2, 2))))


def test_places_and_steps_have_no_gradient_to_lose():
    x = Taped(np.array([[1.5, -2.0]]))
    assert x.argmax() == 0
    assert np.array_equal(np.isfinite(x), [[True, True]])
    assert np.array_equal(np.sign(x), [[1.0, -1.0]])


FUNCTIONS = {
    "moved": lambda a: np.roll(a.swapaxes(0, 1), 1, axis=0) * np.arange(6.0).reshape(3, 2),
    "joined": lambda a: np.concatenate([a * a, np.zeros_like(a), a], axis=1),
    "maximum": lambda a: a.max(axis=1, keepdims=True) * a.min(axis=(0, 1)),
    "selected": lambda a: np.where(a > 0, np.exp(a), a * 3),
    "products": lambda a: np.einsum("ij,kj->ik", a, a) + a @ a.T,
    "averages": lambda a: (a - a.mean(axis=0)) / np.sqrt((a * a).sum(axis=1, keepdims=True)),
    "taken": lambda a: np.take_along_axis(a, np.array([[2], [0]]), 1) ** 3 + np.clip(a, -0.5, 0.5),
    "summed": lambda a: np.cumsum(np.tanh(a), axis=1) - np.log(a * a + 1) + np.maximum(a, -a),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_of_numpys_functions_are_their_derivatives(name):
    function, random = FUNCTIONS[name], np.random.RandomState(1)
    a, v = random.standard_normal((2, 2, 3))
    x = Taped(a)
    y = function(x)
    dy = random.standard_normal(y.shape)
    (dx,) = pull([(y, dy)], [x])
    slope = ((function(a + 1e-6 * v) - function(a - 1e-6 * v)) * dy).sum() / 2e-6
    assert np.isclose((dx * v).sum(), slope, rtol=1e-6)
