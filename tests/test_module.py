import copy
import dataclasses
import functools
import pickle

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import npattn
from npattn.module import as_tuple
from tests.naming import for_each
from tests.own_systems import RMSNorm
from tests.strategies import NAMESPACE, SYSTEMS, cases, modules

every_system = for_each("system", SYSTEMS)


def as_upstream(output):
    """Ones, shaped as the output."""
    ones = tuple(np.ones_like(y) for y in as_tuple(output))
    return ones if isinstance(output, tuple) else ones[0]


@given(cases())
@settings(max_examples=50)
def test_results_have_the_shapes_that_were_asked_for(case):
    module, params, inputs = case
    run = module(params, *inputs.values())
    dx, grads = run.backward(run.output)
    assert {name: grad.shape for name, grad in grads.items()} == module.parameter_shapes()
    assert [None if d is None else d.shape for d in as_tuple(dx)] == [
        None if d is None else x.shape for d, x in zip(as_tuple(dx), inputs.values(), strict=True)
    ]
    assert {name: buffer.shape for name, buffer in run.buffers.items()} in ({}, module.buffer_shapes())
    batch, _, height, width = next(iter(inputs.values())).shape
    outputs = list(module.output_shapes(batch, height, width).items())
    several = isinstance(run.output, tuple)
    assert outputs == [(f"output.{i}" if several else "output", y.shape) for i, y in enumerate(as_tuple(run.output))]


@every_system
def test_a_pass_in_which_nothing_is_wrong_writes_no_text_of_its_system(system, monkeypatch):
    module = system.example()
    params, inputs = npattn.oracle.generic_values(module)
    dy = as_upstream(module(params, *inputs.values()).output)

    def write(self):
        raise AssertionError  # a small system's pass takes no longer than to write that

    monkeypatch.setattr(system, "__str__", write)
    monkeypatch.setattr(system, "__repr__", write)
    module(params, *inputs.values()).backward(dy)


@given(cases())
@settings(max_examples=50)
def test_backward_is_linear_in_the_upstream_gradient(case):
    module, params, inputs = case
    run = module(params, *inputs.values())
    dy = tuple(np.random.RandomState(i).standard_normal(y.shape) for i, y in enumerate(as_tuple(run.output)))
    one, twice = (
        run.backward(tuple(s * d for d in dy) if isinstance(run.output, tuple) else s * dy[0]) for s in (1, 2)
    )
    for name, grad in one[1].items():
        np.testing.assert_array_equal(2 * grad, twice[1][name])


@given(cases())
@settings(max_examples=50)
def test_backward_may_be_called_again_and_gives_the_same(case):
    module, params, inputs = case
    run = module(params, *inputs.values())
    (dx, grads), (dx_again, grads_again) = run.backward(run.output), run.backward(run.output)
    for one, two in zip(as_tuple(dx), as_tuple(dx_again), strict=True):
        np.testing.assert_array_equal(one, two)
        assert one is None or not np.shares_memory(one, two)
    for name, grad in grads.items():
        np.testing.assert_array_equal(grad, grads_again[name])


@given(cases(batch=st.integers(2, 3)))
@settings(max_examples=50)
def test_images_of_a_batch_do_not_see_each_other_and_parameter_gradients_add_up(case):
    module, params, inputs = case
    assume(not getattr(module, "training", False))  # batch norm lets them see each other
    whole = module(params, *inputs.values())
    _, grads = whole.backward(whole.output)
    total = dict.fromkeys(grads, 0)
    for i in range(len(next(iter(inputs.values())))):
        single = module(params, *(x[i : i + 1] for x in inputs.values()))
        for alone, together in zip(as_tuple(single.output), as_tuple(whole.output), strict=True):
            np.testing.assert_allclose(alone[0], together[i], rtol=1e-11, atol=1e-13)
        total = {name: total[name] + grad for name, grad in single.backward(single.output)[1].items()}
    for name, grad in grads.items():
        np.testing.assert_allclose(total[name], grad, rtol=1e-9, atol=1e-11)


@given(cases(), st.sampled_from([1e-100, 1e-30, 1e30, 1e70]))  # SGE squares products: 1e70⁴ is still finite
@settings(max_examples=50)
def test_extreme_inputs_give_finite_outputs_and_gradients(case, scale):
    module, params, inputs = case
    scaled = {name: x if name in module.without_gradient else scale * x for name, x in inputs.items()}
    usual, run = (module(params, *arrays.values()) for arrays in (inputs, scaled))
    dx, grads = run.backward(as_upstream(run.output))
    for y, at_usual_size in zip(as_tuple(run.output), as_tuple(usual.output), strict=True):
        assert (np.isfinite(y) | (y == at_usual_size)).all()  # a query that sees no key has the logsumexp -inf
    for gradient in (*(d for d in as_tuple(dx) if d is not None), *grads.values()):
        assert np.isfinite(gradient).all()


@given(cases())
@settings(max_examples=50)
def test_output_does_not_share_memory_with_what_was_given(case):
    module, params, inputs = case
    run = module(params, *inputs.values())
    dy = as_upstream(run.output)
    dx, grads = run.backward(dy)
    for result in (*as_tuple(run.output), *(d for d in as_tuple(dx) if d is not None), *grads.values()):
        assert result.flags.writeable
        assert not any(np.shares_memory(result, given) for given in (*as_tuple(dy), *inputs.values(), *params.values()))


@every_system
def test_the_seed_decides_the_initial_values(system):
    module = system.example()
    assert list(module.init()) == list(module.parameter_shapes() | module.buffer_shapes())
    for generic in (False, True):
        first, again, other = (module.init(seed, np.float32, generic=generic) for seed in (1, 1, 2))
        assert all(value.dtype == np.float32 for value in first.values())
        assert all((first[name] == again[name]).all() for name in first)
        drawn = (generic and bool(first)) or any(
            np.ptp(value) > 0 for value in first.values()
        )  # not all constants, as a scale of 0 is
        assert any((first[name] != other[name]).any() for name in first) == drawn


def is_drawn_bias(name, starts):
    """Tell whether a parameter is a bias that starts elsewhere with every seed."""
    return name.endswith("bias") and (starts[0][name] != starts[1][name]).any()


@every_system
def test_a_bias_that_is_drawn_fills_the_interval_that_its_layers_weight_is_drawn_from(system):
    module = system.example()
    starts, shapes = [module.init(seed) for seed in range(60)], module.parameter_shapes()
    for name in (name for name in shapes if is_drawn_bias(name, starts)):
        fan_in = np.prod(shapes[name.removesuffix("bias") + "weight"][1:])
        assert 0.95 < np.sqrt(fan_in) * max(np.abs(start[name]).max() for start in starts) <= 1, name


@given(modules())
def test_a_module_is_a_value(module):
    assert module == dataclasses.replace(module)
    assert hash(module) == hash(dataclasses.replace(module))
    assert eval(repr(module), NAMESPACE) == module
    assert pickle.loads(pickle.dumps(module)) == module


def with_numpy_integers(module):
    """The same module, each int among its hyperparameters and those of systems within it NumPy's."""
    convert = {int: np.int64} | dict.fromkeys(SYSTEMS, with_numpy_integers)
    changed = {name: convert[type(value)](value) for name, value in vars(module).items() if type(value) in convert}
    return dataclasses.replace(module, **changed)


@given(modules())
def test_the_text_of_a_module_makes_it_again_and_says_no_more_than_it_must(module):
    assert eval(str(module), dict(NAMESPACE)) == module
    first, *rest = dataclasses.fields(module)
    for one in rest:
        value = getattr(module, one.name)
        told = f"{one.name}={value}" if isinstance(value, npattn.Module) else f"{one.name}={value!r}"
        assert (f", {told}" in str(module)) == (one.default is dataclasses.MISSING or one.default != value)
    assert str(module).startswith(f"{type(module).__name__}({first.name}=")


def test_the_text_of_a_module_names_its_size_even_by_default_and_a_system_within_as_briefly():
    assert str(RMSNorm()) == "RMSNorm(channels=4)"
    assert str(npattn.Residual(npattn.SqueezeExcitation(8))) == "Residual(inner=SqueezeExcitation(channels=8))"


@every_system
def test_numpy_integers_serve_as_hyperparameters(system):
    module = system.example()
    converted = with_numpy_integers(module)
    assert repr(converted) == repr(module)  # kept as Python's
    assert converted.parameter_shapes() == module.parameter_shapes()


@pytest.mark.parametrize("seed", [None, True, 2.5, "1", [3], -1, 2**32, 10**30])
def test_what_is_no_seed_is_refused_by_name(seed):
    with pytest.raises((TypeError, ValueError), match=r"^SimAM\.init: seed=.*expected an int"):
        npattn.SimAM(4).init(seed)


@pytest.mark.parametrize(
    ("dtype", "words"),
    [
        (int, "dtype=<class 'int'>; expected one of floating-point or complex numbers, such as np.float32"),
        (bool, "expected one of floating-point or complex numbers"),
        ("U5", "dtype='U5'; expected one of floating-point"),
        ([], "dtype=[]; expected one of floating-point"),
        ("bfloat16", "dtype='bfloat16' is a str, and no dtype of NumPy; expected one, such as np.float32"),
        (np.ones(2), "and no dtype of NumPy; expected one, such as np.float32"),
    ],
)
def test_parameters_of_other_numbers_are_refused(dtype, words):
    with pytest.raises(TypeError) as caught:
        npattn.SimAM(4).init(dtype=dtype)
    assert words in str(caught.value)
    made = npattn.EfficientChannelAttention(4).init(np.uint32(3), np.complex64)
    assert made["conv.weight"].dtype == np.complex64


@every_system
def test_a_pass_says_briefly_what_it_holds(system):
    module = system.example()
    params, inputs = npattn.oracle.generic_values(module)
    run = module(params, *inputs.values())
    assert len(repr(run)) < 300
    assert "output: float64" in repr(run)
    assert all(name in repr(run) for name in run.attention)


@every_system
def test_a_system_documents_its_parameters_errors_and_source(system):
    for section in ("Parameters\n", "Raises\n", "Notes\n", "References\n", "Examples\n"):
        assert section in system.__doc__
    for field in dataclasses.fields(system):
        assert field.name in system.__doc__
    for name in system.example().parameter_shapes():
        assert name in system.__doc__


def test_the_base_class_and_its_incomplete_heirs_cannot_be_made():
    with pytest.raises(TypeError, match="abstract"):
        npattn.Module()


def test_importing_the_package_loads_neither_plots_nor_gpu_libraries():
    import subprocess
    import sys

    code = "import sys, npattn; print([m for m in ('matplotlib', 'cupy', 'torch', 'hypothesis') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@every_system
def test_check_refuses_what_a_call_refuses_and_computes_nothing(system, monkeypatch):
    module = system.example()
    params, inputs = npattn.oracle.generic_values(module)
    wrong = [
        (params, [x[0] for x in inputs.values()]),
        (params, []),
        (list(params), inputs.values()),
    ]
    for name in list(params)[:1]:
        wrong += [
            (params, [x.astype(np.float32) for x in inputs.values()]),
            ({key: value for key, value in params.items() if key != name}, inputs.values()),
            (params | {name: params[name][None]}, inputs.values()),
        ]
    with monkeypatch.context() as patch:
        patch.setattr(system, "forward", None)
        assert module.check(params, *inputs.values()) is None
        found = []
        for given_params, given_inputs in wrong:
            with pytest.raises((TypeError, ValueError)) as caught:
                module.check(given_params, *given_inputs)
            found.append((caught.type, str(caught.value)))
    for (given_params, given_inputs), expected in zip(wrong, found, strict=True):
        with pytest.raises((TypeError, ValueError)) as caught:
            module(given_params, *given_inputs)
        assert (caught.type, str(caught.value)) == expected


@pytest.mark.parametrize(
    "decorate", [lambda cls: cls, dataclasses.dataclass(frozen=True, eq=False)], ids=["plain", "no eq"]
)
def test_systems_that_are_no_dataclasses_of_their_own_are_equal_if_all_that_they_hold_is(decorate):
    @decorate
    class Own(npattn.Module):
        channels: int

        def __init__(self, channels):
            object.__setattr__(self, "channels", channels)

        def forward(self, params, x):
            return npattn.Pass(x, lambda dy: (dy, {}))

    class Other(Own):
        pass

    assert Own(4) == Own(4)
    assert hash(Own(4)) == hash(Own(4))
    assert len({Own(4), Own(8), Own(4), Other(4)}) == 3
    assert Own(4) != 4


def test_what_a_cached_property_keeps_is_nothing_that_a_system_holds(tmp_path):
    class Doubled(npattn.Module):
        def input_shapes(self, batch, height, width):
            return {"x": (batch, height, width)}

        @functools.cached_property
        def factor(self):
            return 2

        def forward(self, params, x):
            return npattn.Pass(self.factor * x, lambda dy: (self.factor * dy, {}))

    used, new = Doubled(), Doubled()
    assert used.factor == 2
    assert used == new
    assert hash(used) == hash(new)
    npattn.oracle.golden(used, height=2, width=2).save(tmp_path / "case.npz")


def test_systems_that_hold_arrays_are_equal_by_their_numbers():
    class Table(npattn.Module):
        def __init__(self, *values):
            self.table, self.steps = np.array(values), [{"size": np.ones(len(values))}]

        def input_shapes(self, batch, height, width):
            return {"x": (batch, height, len(self.table))}

        def forward(self, params, x):
            return npattn.Pass(self.table * x, lambda dy: (self.table * dy, {}))

    table = Table(1.0, 2.0)
    assert table == Table(1.0, 2.0)
    assert npattn.Residual(table) == copy.deepcopy(npattn.Residual(table))
    assert table not in [Table(1.0, 3.0), Table(1.0), Table(1.0, 2.0, 3.0)]
    assert {table: "found"}[Table(1.0, 2.0)] == "found"


@for_each("name", ["attention", "data", "fields", "layers", "ops", "oracle", "parameters", "tracing"])
def test_a_part_of_the_package_is_there_without_another_having_been_asked_for(name):
    import subprocess
    import sys

    assert name in npattn.__all__
    subprocess.run([sys.executable, "-c", f"import npattn; npattn.{name}"], check=True)
