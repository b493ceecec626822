import numpy as np

import npattn
from npattn.oracle import generic_values
from npattn.oracle.budgets import Given, named_results
from npattn.oracle.mistakes.lines import rules_of_lines


def run(module, *given):
    return named_results(module, Given(*given))


def in_other_order(module, first, second):
    name = f"{first} and {second} in the other order"
    return next(one for one in rules_of_lines(module) if one.name == name)


def test_two_gates_in_the_other_order_are_the_gates_of_the_other_order():
    module = npattn.CBAM(channels=4, reduction=2)
    params, inputs = generic_values(module, batch=2, height=3, width=4)
    inputs = {"x": inputs["x"]}
    wrong = in_other_order(module, "(15)", "(16)").apply(run, module, params, inputs, {"output": inputs["x"]})
    channel, spatial = (
        {n.partition(".")[2]: a for n, a in params.items() if n.startswith(name)}
        for name in ("ChannelGate", "SpatialGate")
    )
    expected = module.channel_gate(channel, module.spatial_gate(spatial, inputs["x"]).output).output
    assert np.allclose(wrong["output"], expected, rtol=1e-12)
    assert not np.allclose(wrong["output"], module(params, inputs["x"]).output)


def test_a_step_in_a_branch_of_its_own_is_exchanged_with_one_behind_it():
    module = npattn.GlobalContext.example()
    params, inputs = generic_values(module, batch=2, height=3, width=4)
    x = inputs["x"]
    passed = module(params, x)
    wrong = in_other_order(module, "(10)", "(12)").apply(run, module, params, inputs, {"output": x})
    gates = passed.attention["channel"].reshape(*x.shape[:2], 1, 1)
    term = passed.output - x * gates
    assert np.allclose(wrong["output"], (x + term) * gates, rtol=1e-12)


def test_the_second_of_two_steps_may_come_first_on_any_of_its_inputs():
    module = npattn.CATALOGUE["external"].example()
    params, inputs = generic_values(module, batch=2, height=3, width=4)
    x = inputs["x"]
    one = next(m for m in rules_of_lines(module) if m.name == "(8) and (9) in the other order: (9) of n alone")
    wrong = one.apply(run, module, params, inputs, {"output": x})
    n = steps_of(module, params, x)["n"]
    assert np.allclose(wrong["output"], x + np.maximum(n, 0), rtol=1e-12)


def test_results_of_two_steps_may_stand_in_each_others_place():
    module = npattn.CATALOGUE["ema"].example()
    params, inputs = generic_values(module, batch=2, height=3, width=4)
    x = inputs["x"]
    ways = [one for one in rules_of_lines(module) if one.name == "(14) w_m and w_n in each other's place"]
    wrong = next(one for one in ways if one.way == "carried").apply(run, module, params, inputs, {"output": x})
    known = steps_of(module, params, x)
    m, n = (known[name].reshape(*known[name].shape[:2], 12) for name in ("m", "n"))
    u = known["w_m"][:, None] @ m + known["w_n"][:, None] @ n
    gates = (1 / (1 + np.exp(-u))).reshape(len(m), 1, 3, 4)
    assert np.allclose(wrong["output"], (x.reshape(len(m), -1, 3, 4) * gates).reshape(x.shape), rtol=1e-12)


def steps_of(module, params, x):
    return {step.name: step.value for step in npattn.trace(module, params, x).steps}


def test_steps_that_no_other_reads_are_left_where_they_are():
    names = [one.name for one in rules_of_lines(npattn.SqueezeExcitation(channels=4, reduction=2))]
    orders = {name for name in names if name.endswith("in the other order")}
    assert "(2) and (3) in the other order" in orders
    assert "(1) and (5) in the other order" not in orders


def test_a_layers_gradients_may_come_from_another_tensor_than_it_has_read():
    module = npattn.CBAM(channels=4, reduction=2)
    params, inputs = generic_values(module, batch=2, height=5, width=4)
    dy = np.random.RandomState(0).standard_normal(inputs["x"].shape)
    name = "in the parameters' gradients alone"
    one = next(one for one in rules_of_lines(module) if one.name.endswith(name) and "(16) x read" in one.name)
    given = params, inputs, {"output": dy}
    right, wrong = run(module, *given), one.apply(run, module, *given)
    own = {n.partition(".")[2]: a for n, a in params.items() if n.startswith("SpatialGate.")}
    _, grads = module.spatial_gate(own, inputs["x"]).backward(dy)
    assert all(np.allclose(wrong[f"SpatialGate.{n}.grad"], g) for n, g in grads.items())
    differing = {n for n in right if not np.allclose(right[n], wrong[n])}
    assert differing
    assert all(n.startswith("SpatialGate.") for n in differing)
