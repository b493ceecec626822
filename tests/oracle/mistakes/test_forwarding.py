import numpy as np
import pytest

import npattn
from npattn import ops
from npattn.oracle import generic_values
from npattn.oracle.budgets import Given, named_results
from npattn.oracle.mistakes import covering, several_steps, two_gates
from npattn.oracle.mistakes.forwarding import with_steps

PASSES = [one for file in (covering, two_gates, several_steps) for one in file.ADDED if one.plain and not one.primitive]
NAMES = sorted({one.name for one in PASSES if one.way == "carried"})
SYSTEMS = "cbam", "coordinate", "bam", "flexible", "sliding-window", "flexible-segmentation", "se"


def run(module, *given):
    return named_results(module, Given(*given))


def given_to(module):
    random = np.random.RandomState(0)
    params, inputs = generic_values(module, batch=2, height=6, width=5)
    output = module(params, *inputs.values()).output
    return params, inputs, {"output": random.standard_normal(output.shape)}


def places(name):
    """The systems that a mistake can stand in, with what they are given."""
    one = next(one for one in PASSES if (one.name, one.way) == (name, "carried"))
    modules = [npattn.CATALOGUE[key].example() for key in SYSTEMS]
    return one, [(m, given) for m, given in ((m, given_to(m)) for m in modules) if one.when(m, *given)]


def slope_along(of, leaves, name, v, step=1e-7):
    """The derivative of a number along a direction in one of some arrays."""
    ends = (of(leaves | {name: leaves[name] + t * v}) for t in (step, -step))
    return (next(ends) - next(ends)) / (2 * step)


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_pass_is_carried_back_by_its_own_derivative(name):
    one, found = places(name)
    assert found
    for module, (params, inputs, upstream) in found:
        random, dy = np.random.RandomState(1), upstream["output"]

        def output(params, inputs, module=module, upstream=upstream):
            return one.apply(run, module, params, inputs, upstream)["output"]

        def of_params(changed, inputs=inputs, dy=dy, output=output):
            return (output(changed, inputs) * dy).sum()

        def of_inputs(changed, params=params, dy=dy, output=output):
            return (output(params, changed) * dy).sum()

        wrong = one.apply(run, module, params, inputs, upstream)
        assert not np.allclose(wrong["output"], module(params, *inputs.values()).output)
        for of, leaves in ((of_params, params), (of_inputs, inputs)):
            leaf = next(n for n in leaves if np.abs(wrong.get(f"{n}.grad", np.zeros(1))).max() > 0)
            v = random.standard_normal(leaves[leaf].shape)
            slope = slope_along(of, leaves, leaf, v)
            assert np.isclose((wrong[f"{leaf}.grad"] * v).sum(), slope, rtol=1e-4, atol=1e-5), (name, leaf)


def test_forward_alone_keeps_the_right_gradients():
    carried, alone = sorted(with_steps("sigmoid left out", lambda *_: without_sigmoid), key=lambda one: one.way)
    module = npattn.EfficientChannelAttention(channels=4)
    given = given_to(module)
    right, wrong = run(module, *given), alone.apply(run, module, *given)
    assert (alone.way, carried.way) == ("forward", "carried")
    assert not np.allclose(wrong["output"], right["output"])
    assert np.array_equal(wrong["x.grad"], right["x.grad"])
    assert np.array_equal(wrong["output"], carried.apply(run, module, *given)["output"])
    assert not np.allclose(carried.apply(run, module, *given)["x.grad"], right["x.grad"])


def without_sigmoid(primitive, arguments, options):
    return arguments[0] * 1.0 if primitive is ops.sigmoid else NotImplemented


def test_windows_that_lie_where_they_should_change_nothing():
    module = npattn.SlidingWindowSegmentation(channels=3, classes=2, window=3, stride=2)
    params, inputs, upstream = given_to(module)
    right = covering.lying((ops.window_starts, ops.window_starts))
    for one in with_steps("nothing", right):
        found = one.apply(run, module, params, inputs, upstream)
        assert all(np.allclose(found[n], a) for n, a in run(module, params, inputs, upstream).items())


def test_the_gradient_of_one_gate_lacks_the_other():
    module = npattn.CoordinateAttention(channels=4)
    params, inputs, upstream = given_to(module)
    x, dy = inputs["x"], upstream["output"]
    passed = module(params, x)
    rows, columns = (passed.attention[name] for name in ("height", "width"))
    seen = []

    def watch(da):
        seen.append(da)
        return da

    first, second = (one for one in two_gates.ADDED if one.name.startswith("gradient: of the "))

    def watched(module, *given):
        def answer(primitive, arguments, options):
            if primitive is not ops.sigmoid:
                return NotImplemented
            y, back = primitive(*arguments)
            return y, lambda da: back(watch(da))

        with two_gates.answering(answer):
            return run(module, *given)

    first.apply(watched, module, params, inputs, upstream)
    da_columns, da_rows = seen
    assert np.allclose(da_rows, (dy * x).sum(axis=3, keepdims=True))
    assert np.allclose(da_columns, (dy * x * rows).sum(axis=2, keepdims=True))
    seen.clear()
    second.apply(watched, module, params, inputs, upstream)
    da_columns, da_rows = seen
    assert np.allclose(da_columns, (dy * x).sum(axis=2, keepdims=True))
    assert np.allclose(da_rows, (dy * columns * x).sum(axis=3, keepdims=True))
