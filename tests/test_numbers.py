"""One code, many numbers: every system on every kind of number that NumPy's dispatch protocols carry."""

import re
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from npattn import definitions
from npattn.module import as_tuple
from npattn.oracle import generic_values
from tests.naming import for_each
from tests.strategies import SYSTEMS, arrange, cases, layouts

every_system = for_each("system", SYSTEMS)
# Where a tolerance meets a kink (of ReLU, of a maximum), the branch taken may differ; fixed seeds keep away from that.
every_seed = for_each("seed", range(3))
more_digits = pytest.mark.skipif(
    np.finfo(np.longdouble).eps == np.finfo(np.float64).eps, reason="longdouble has no more digits than float64 here"
)


@pytest.fixture(scope="module")
def to_device():
    """The stand-in for a GPU array, or a skip where CuPy, whose vocabulary it takes over, isn't installed."""
    pytest.importorskip("cupy")
    from tests.device_array import DeviceArray

    return DeviceArray


@pytest.fixture(scope="module")
def gpu():
    """CuPy, where there is a GPU to run it on."""
    cupy = pytest.importorskip("cupy")
    try:
        present = cupy.cuda.runtime.getDeviceCount() > 0
    except cupy.cuda.runtime.CUDARuntimeError:  # no driver either
        present = False
    if not present:
        pytest.skip("no GPU is present")
    return cupy


def example(system, dtype=np.float64, seed=0):
    """The system's small instance with generic parameters, inputs and upstream gradient."""
    module = system.example()
    params, inputs = generic_values(module, seed=seed, dtype=dtype)
    return module, params, inputs, upstream(module, params, inputs, seed)


def upstream(module, params, inputs, seed=0):
    """A random gradient, shaped as the output."""
    random = np.random.RandomState([seed, 2])
    output = module(params, *inputs.values()).output
    dy = tuple(random.standard_normal(y.shape).astype(y.dtype) for y in as_tuple(output))
    return dy if isinstance(output, tuple) else dy[0]


def each(function, value):
    """Apply a function to every array of a dict or tuple, or to the one array."""
    if isinstance(value, dict):
        return {name: function(array) for name, array in value.items()}
    return tuple(map(function, value)) if isinstance(value, tuple) else function(value)


def forward_results(run):
    """Everything that a forward pass hands back, by name."""
    outputs = {f"output.{i}": y for i, y in enumerate(as_tuple(run.output))}
    named = {"attention": run.attention, "buffers": run.buffers}
    return outputs | {f"{kind}.{name}": a for kind, arrays in named.items() for name, a in arrays.items()}


def backward_results(run, inputs, dy):
    """Every gradient, by name; inputs that are not differentiated have none."""
    dx, grads = run.backward(dy)
    by_input = dict(zip(inputs, as_tuple(dx), strict=True))
    return {f"{name}.grad": g for name, g in (by_input | grads).items() if g is not None}


def results(module, params, inputs, dy):
    run = module(params, *inputs.values())
    return forward_results(run) | backward_results(run, inputs, dy)


def largest(arrays):
    """The largest magnitude, NaN where there is one."""
    return np.max([np.max(np.abs(a), initial=0) for a in arrays], initial=0)


def assert_close(found, expected, tolerance, floor=0):
    """Hold every tensor to a tolerance in units of its largest element, or of `floor` where that is larger.

    An infinity, as the logsumexp of a query that sees nothing, has to be that infinity.
    """
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].shape == value.shape, name
        finite = np.isfinite(value)
        np.testing.assert_array_equal(found[name][~finite], value[~finite], name)
        error = largest([found[name][finite] - value[finite]])
        assert error <= tolerance * max(largest([value[finite]]), floor), f"{name}: {error}"


def gradient_floor(expected):
    """A tenth of the largest gradient: the noise in gradients that vanish, such as a bias's under a softmax."""
    return 0.1 * largest(g for name, g in expected.items() if name.endswith(".grad"))


def assert_same_bits(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape), name
        assert found[name].tobytes() == value.tobytes(), name


def directions(variables, seed):
    """A random direction for every variable."""
    random = np.random.RandomState([seed, 3])
    return {name: random.standard_normal(a.shape) for name, a in variables.items()}


def output_function(module, params, inputs):
    """The forward pass as a function of all variables by name, its outputs flat and end to end."""

    def f(variables):
        run = module({name: variables[name] for name in params}, *(variables[name] for name in inputs))
        return np.concatenate([y.ravel() for y in as_tuple(run.output)])

    return f


def central_difference(f, variables, v, step):
    """The derivative along v, to the digits that a difference leaves."""
    ahead, behind = (f({name: a + s * v[name] for name, a in variables.items()}) for s in (step, -step))
    return (ahead - behind) / (2 * step)


def complex_step(f, variables, v):
    """The derivative along v, to the last digits."""
    step = 2.0**-100
    return f({name: a + 1j * (step * v[name]) for name, a in variables.items()}).imag / step


@given(st.sampled_from([np.float32, np.float64, np.longdouble]).flatmap(lambda dtype: cases(dtype=dtype)))
@settings(max_examples=40)
def test_output_attention_buffers_and_gradients_have_the_inputs_dtype(case):
    dtype = next(iter(case[2].values())).dtype
    found = results(*case, upstream(*case))
    assert {name: a.dtype for name, a in found.items()} == dict.fromkeys(found, dtype)


@every_system
@every_seed
def test_float32_agrees_with_float64_to_a_few_hundred_ulps(system, seed):
    module, *single = example(system, np.float32, seed)
    double = [each(lambda a: a.astype(np.float64), value) for value in single]
    expected = results(module, *double)
    assert_close(results(module, *single), expected, 300 * np.finfo(np.float32).eps, gradient_floor(expected))


@every_system
@every_seed
def test_longdouble_agrees_with_float64_to_its_last_digits(system, seed):
    module, *double = example(system, np.float64, seed)
    extended = [each(lambda a: a.astype(np.longdouble), value) for value in double]
    found, expected = results(module, *extended), results(module, *double)
    assert {a.dtype for a in found.values()} == {np.dtype(np.longdouble)}
    assert_close(found, expected, 1e-13, gradient_floor(expected))


@more_digits
@every_system
@every_seed
def test_longdouble_forward_resolves_steps_that_drown_in_the_rounding_of_float64(system, seed):
    module, params, inputs, _ = example(system, np.float64, seed)
    variables = params | inputs
    v = directions(variables, seed)
    f = output_function(module, params, inputs)
    exact = complex_step(f, variables, v)

    def error(dtype):
        at = {name: a.astype(dtype) for name, a in variables.items()}
        along = {name: a.astype(dtype) for name, a in v.items()}
        return largest([central_difference(f, at, along, 2.0**-26) - exact])

    assert error(np.longdouble) <= error(np.float64) / 100


@more_digits
@every_system
@every_seed
def test_longdouble_backward_is_linear_beyond_the_digits_of_float64(system, seed):
    module, params, inputs, dy = example(system, np.float64, seed)

    def error(dtype):
        p, x, one = (each(lambda a: a.astype(dtype), value) for value in (params, inputs, dy))
        run = module(p, *x.values())
        other = each(lambda a: np.sin(a.astype(dtype)), dy)
        both = tuple(a + b for a, b in zip(as_tuple(one), as_tuple(other), strict=True))
        parts = backward_results(run, x, one), backward_results(run, x, other)
        whole = backward_results(run, x, both if isinstance(dy, tuple) else both[0])
        return largest(parts[0][name] + parts[1][name] - g for name, g in whole.items())

    assert error(np.longdouble) <= error(np.float64) / 100


@every_system
@every_seed
def test_complex_numbers_without_imaginary_part_give_the_real_result(system, seed):
    module, params, inputs, _ = example(system, np.float64, seed)
    expected = forward_results(module(params, *inputs.values()))
    params, inputs = (each(lambda a: a.astype(np.complex128), value) for value in (params, inputs))
    found = forward_results(module(params, *inputs.values()))
    assert {a.dtype for a in found.values()} == {np.dtype(np.complex128)}
    assert largest(a.imag for a in found.values()) == 0
    assert_close({name: a.real for name, a in found.items()}, expected, 100 * np.finfo(np.float64).eps)


@every_system
@every_seed
def test_imaginary_steps_give_the_derivative_that_differences_give(system, seed):
    module, params, inputs, _ = example(system, np.float64, seed)
    variables = params | inputs
    v = directions(variables, seed)
    f = output_function(module, params, inputs)
    found, expected = complex_step(f, variables, v), central_difference(f, variables, v, 1e-6)
    assert_close({"output": found}, {"output": expected}, 1e-6)


@every_system
@every_seed
def test_forward_keeps_the_cauchy_riemann_equations_off_the_real_axis(system, seed):
    module, params, inputs, _ = example(system, np.float64, seed)
    real = params | inputs
    imaginary, v = directions(real, seed + 100), directions(real, seed)
    variables = {name: a + 0.1j * imaginary[name] for name, a in real.items()}
    f = output_function(module, params, inputs)
    found = central_difference(f, variables, {name: 1j * w for name, w in v.items()}, 1e-6)
    expected = 1j * central_difference(f, variables, v, 1e-6)
    assert_close({"output": found}, {"output": expected}, 1e-6)


@given(case=st.sampled_from([np.float32, np.float64]).flatmap(lambda dtype: cases(dtype=dtype)))
@settings(max_examples=60)
def test_every_system_runs_on_a_device_array_and_gives_the_same_bits(to_device, case):
    module, params, inputs = case
    dy = upstream(module, params, inputs)
    found = results(module, *(each(to_device, value) for value in (params, inputs, dy)))
    assert {name: type(a) for name, a in found.items()} == dict.fromkeys(found, to_device)
    with definitions():
        expected = results(module, params, inputs, dy)
    assert_same_bits(each(to_device.get, found), expected)


@every_system
def test_kinds_of_array_that_are_mixed_are_refused_by_name(to_device, system):
    module, params, inputs, dy = example(system)
    on_device = each(to_device, params), each(to_device, inputs)
    for name in params:
        with pytest.raises(TypeError, match=re.escape(f"parameter {name!r} is a numpy.ndarray")):
            module(on_device[0] | {name: params[name]}, *on_device[1].values())
        with pytest.raises(TypeError, match=re.escape(f"parameter {name!r} is a {to_device.__module__}.DeviceArray")):
            module(params | {name: on_device[0][name]}, *inputs.values())
    for name in list(inputs)[1:]:
        with pytest.raises(TypeError, match=f"{name} is a numpy.ndarray"):
            module(on_device[0], *(on_device[1] | {name: inputs[name]}).values())
    with pytest.raises(TypeError, match=r"dy.* is a numpy\.ndarray"):
        module(on_device[0], *on_device[1].values()).backward(dy)


@every_system
@for_each("dtype, tolerance", [(np.float32, 1e-5), (np.float64, 1e-12)])
@pytest.mark.filterwarnings("default")  # what CuPy says about its machine is no fault of the mathematics
def test_every_system_runs_on_a_gpu(gpu, system, dtype, tolerance):
    module, *host = example(system, dtype)
    found = results(module, *(each(gpu.asarray, value) for value in host))
    assert {name: type(a) for name, a in found.items()} == dict.fromkeys(found, gpu.ndarray)
    expected = results(module, *host)
    assert {name: a.dtype for name, a in found.items()} == {name: a.dtype for name, a in expected.items()}
    assert_close(each(gpu.asnumpy, found), expected, tolerance, gradient_floor(expected))


@every_system
def test_one_module_in_many_threads_gives_the_bits_of_one_after_another(system):
    module, params, *_ = example(system)
    many = [generic_values(module, seed=seed)[1] for seed in range(4)]
    dys = [upstream(module, params, inputs, seed) for seed, inputs in enumerate(many)]
    all_forwards_done = threading.Barrier(len(many))

    def work(inputs, dy):
        run = module(params, *inputs.values())
        all_forwards_done.wait(timeout=300)  # whatever a pass kept outside its closure is another's by now
        return forward_results(run) | backward_results(run, inputs, dy)

    with ThreadPoolExecutor(len(many)) as pool:
        at_once = list(pool.map(work, many, dys))
    for found, inputs, dy in zip(at_once, many, dys, strict=True):
        assert_same_bits(found, results(module, params, inputs, dy))


@every_system
def test_backward_gives_the_same_bits_again(system):
    module, params, inputs, dy = example(system)
    run = module(params, *inputs.values())
    first = each(np.copy, backward_results(run, inputs, dy))
    backward_results(run, inputs, each(np.negative, dy))
    assert_same_bits(backward_results(run, inputs, dy), first)


@given(st.data())
@settings(max_examples=60)
def test_arguments_of_any_layout_are_never_written_to(data):
    module, params, inputs = data.draw(cases())
    dy = upstream(module, params, inputs)
    expected = results(module, params, inputs, dy)

    def laid_out(array):
        arranged = arrange(array.copy(), data.draw(layouts))
        arranged.flags.writeable = False
        return arranged

    arguments = [each(laid_out, value) for value in (params, inputs, dy)]
    found = results(module, *arguments)
    for before, after in zip((params, inputs, dy), arguments, strict=True):
        as_named = [value if isinstance(value, dict) else dict(enumerate(as_tuple(value))) for value in (after, before)]
        assert_same_bits(*as_named)
    # Sums taken in another order differ by the rounding of their terms, which may cancel: hence the common scale.
    scale = largest([*params.values(), *inputs.values(), *as_tuple(dy), *expected.values()])
    assert_close(found, expected, 1e-10, scale)


@given(st.data())
@settings(max_examples=60)
def test_nan_in_the_input_shows_in_the_output_where_it_stood(data):
    module, params, inputs = data.draw(cases())
    x = next(iter(inputs.values()))
    index = tuple(data.draw(st.integers(0, length - 1)) for length in x.shape)
    # A query that sees no key depends on nothing, and nothing depends on what a stride passes over.
    if module.key in ("sdpa", "mhsa") or getattr(module, "stride", 1) > 1:
        before = as_tuple(module(params, *inputs.values()).output)[0]
        x[index] += 1
        moved = as_tuple(module(params, *inputs.values()).output)[0] != before
        assume((moved[index] if moved.shape == x.shape else moved).any())
    x[index] = np.nan
    outputs = as_tuple(module(params, *inputs.values()).output)
    if module.key == "shuffle":  # which puts channels in another order
        index = index[0], slice(None), *index[2:]
    for y in outputs:
        assert np.isnan(y[index] if y.shape == x.shape else y).any()


@every_system
@for_each("index", [(0, 0, 0, 0), (1, -1, -1, -1)])
def test_infinity_passes_without_an_exception_and_leaves_its_mark(system, index):
    module, params, inputs, _ = example(system)
    x = next(iter(inputs.values()))
    marked = []
    for infinity in (np.inf, -np.inf):  # a rectifier may swallow one of the two
        x[index] = infinity
        with np.errstate(invalid="ignore", over="ignore"):
            outputs = as_tuple(module(params, *inputs.values()).output)
        marked.append(not all(np.isfinite(y).all() for y in outputs))
    assert any(marked)
