"""Every kind of number is traced as it is computed."""

import numpy as np
import pytest

import npattn
from npattn.module import as_tuple
from npattn.oracle import generic_values
from npattn.oracle.formats import find_format
from npattn.oracle.rounding import Rounding, RoundingArray
from npattn.tracing import trace
from tests.naming import for_each
from tests.strategies import SYSTEMS

every_system = for_each("system", SYSTEMS)


def run(module, params, inputs, *, traced):
    """A pass there and back, with the output as upstream gradient: what it gives, and the trace if there is one."""
    steps = trace(module, params, *inputs.values()) if traced else None
    found = steps.run if traced else module(params, *inputs.values())
    dx, grads = (steps or found).backward(found.output)
    return [*as_tuple(found.output), *(d for d in as_tuple(dx) if d is not None), *grads.values()], steps


@every_system
@for_each("dtype", ["f2", "f4", "f8", "g", "D"])
def test_steps_are_of_the_dtype_that_is_computed_in(system, dtype):
    module = system.example()
    params, inputs = generic_values(module, dtype=dtype)
    found, steps = run(module, params, inputs, traced=True)
    expected, _ = run(module, params, inputs, traced=False)
    np.testing.assert_equal(found, expected, strict=True)
    assert {step.value.dtype for step in steps.steps if step.name != "index"} == {np.dtype(dtype)}


def test_complex_steps_carry_derivatives():
    module = npattn.EfficientChannelAttention(4)
    params, inputs = generic_values(module, dtype=complex)
    steps = trace(module, params, inputs["x"] + 1e-30j)
    z, a = steps["(2) z"].value, steps["(3) a"].value
    np.testing.assert_allclose(a.imag, a.real * (1 - a.real) * z.imag, rtol=1e-12)
    assert (z.imag != 0).all()


@every_system
def test_rounding_arrays_round_in_a_trace_as_without_it_and_printing_draws_nothing(system):
    module = system.example()
    params, inputs = generic_values(module, dtype=np.float32)

    def rounded(traced):
        rounding = Rounding(find_format("bfloat16", "here"), seed=3)
        own = [{name: rounding.array(a) for name, a in given.items()} for given in (params, inputs)]
        steps = trace(module, own[0], *own[1].values()) if traced else None
        found = steps.run if traced else module(own[0], *own[1].values())
        if traced:
            assert str(steps)
        _, grads = (steps or found).backward(found.output)
        return [np.asarray(a) for a in (*as_tuple(found.output), *grads.values())], steps

    (found, steps), (expected, _) = rounded(True), rounded(False)
    np.testing.assert_equal(found, expected)
    assert all(isinstance(step.value, RoundingArray) for step in steps.steps if step.value.dtype.kind == "f")


@every_system
def test_a_gpus_arrays_are_traced_where_they_are(system):
    pytest.importorskip("cupy")
    from tests.device_array import DeviceArray

    module = system.example()
    params, inputs = generic_values(module)
    own = [{name: DeviceArray(a) for name, a in given.items()} for given in (params, inputs)]
    _, steps = run(module, *own, traced=True)
    assert all(isinstance(step.value, DeviceArray) for step in steps.steps)
    kept = [step.value.get() for step in steps.steps]
    _, plain = run(module, params, inputs, traced=True)
    for here, there in zip(kept, plain.steps, strict=True):
        np.testing.assert_allclose(here, there.value, rtol=1e-9, atol=1e-9)


def test_nan_and_infinity_pass_through():
    module = npattn.EfficientChannelAttention(2)
    x = np.array([[[[np.nan, 1.0]], [[np.inf, 1.0]]]])
    steps = trace(module, module.init(), x)
    assert np.isnan(steps["(1) p"].value[0, 0])
    assert "nan" in str(steps)
    assert "nan" in steps.in_full()
