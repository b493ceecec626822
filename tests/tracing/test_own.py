"""Systems of users: whatever their text looks like, or where it is."""

import importlib.util
import linecache
import sys

import numpy as np
import pytest

from npattn import EfficientChannelAttention, ops
from npattn.module import Pass
from npattn.oracle import generic_values
from npattn.tracing import trace
from tests.tracing import own

X = np.array([[[[1.0, 2.0], [3.0, -4.0]], [[0.0, 1.0], [-1.0, 2.0]]]])


def paths(module, x=X):
    steps = trace(module, module.init(), x)
    steps.backward(np.ones_like(x))
    return [step.path for step in steps.steps]


def values(module):
    steps = trace(module, module.init(), X)
    steps.backward(np.ones_like(X))
    return [(step.path, np.asarray(step.value).ravel()[0].item()) for step in steps.steps]


def test_every_form_of_statement_is_a_step_with_the_values_of_that_moment():
    assert values(own.Tagged()) == [
        ("(1) p", 0.5),
        ("(2) q", 1.25),
        ("(2) half", 0.25),
        ("(3) first", 1.25),
        ("(3) others[0]", 2.25),
        ("(3) statistic", 3.25),
        ("(4) q", 12.5),
        ("(4) q", 125),
        ("(5) i", 1),
        ("(5) last", 126),
        ("(6) q", 7),
        ("(8) scale", 2),
        ("(9) y", 126),
        ("(10) y", -126),
        ("(11) output", -126),
        ("(9') dx", -126),
        ("(9') da", -2),
        ("(8') da", -20),
        ("(1') back_pool(da * 100, accumulate_into=dx)", -626),
    ]


def test_a_statement_that_writes_to_an_array_is_a_step_of_that_array(capsys):
    found = [(step.path, step.value.flat[0]) for step in trace(own.Written(), {}, X).steps]
    by_hand = [("(1) a", 3), ("(2) a", 3), ("(3) a", 5), ("(4) a", 2), ("(5) a", 2), ("(6) a", 3), ("(8) y", 4)]
    assert found == by_hand


def test_a_statement_of_several_lines_is_one_line():
    assert trace(own.Tagged(), {}, X)["(1) p"].line == "p, back_pool = ops.global_average_pool(x,)"


def test_without_tags_the_steps_are_calls_of_primitives():
    steps = trace(own.Untagged(), {}, X)
    steps.backward(np.ones_like(X))
    assert [step.path for step in steps.steps] == [
        "(1) global_average_pool",
        "(2) sigmoid",
        "(3) gate",
        "(3') dx",
        "(3') da",
        "(2') dx",
        "(1') dx",
    ]
    assert [step.line for step in steps.forward_steps] == [
        "p, back_pool = ops.global_average_pool(x)",
        "return ops.sigmoid(p)",
        "y, back_gate = ops.gate(x, a)",
    ]
    np.testing.assert_array_equal(steps["(2) sigmoid"].value, ops.sigmoid(X.mean(axis=(2, 3)))[0])
    np.testing.assert_array_equal(steps["(3') da"].value, X.sum(axis=(2, 3)))
    assert {step.equation for step in steps.steps} == {None}


def test_of_a_half_without_tags_the_steps_are_calls_of_primitives():
    assert paths(own.ForwardTagged()) == ["(1) r", "(2) y", "(2') dx", "(1') dx"]
    assert paths(own.BackwardTagged()) == ["(1) relu", "(1') dx"]


def test_what_is_inherited_is_followed():
    found = paths(own.Heir(2))
    assert found[:5] == ["(1) p", "(2) z", "(3) a", "(4) y", "(5) y"]
    assert found[5:] == ["(4') dx", "(4') da", "(3') dz", "(2') dp", "(2') conv.weight.grad", "(1') dx"]
    steps = trace(own.Heir(2), own.Heir(2).init(), X)
    assert steps["(4) y"].equation == "y_{bcn} = a_{bc} x_{bcn}"
    assert steps["(5) y"].equation is None


def test_decorators_private_names_and_partial_calls_keep_their_meaning():
    assert paths(own.Decorated()) == ["(1) y", "(1') dx"]
    assert values(own.Private()) == [("(1) y", 3), ("(1') dx", 3)]


def test_a_method_may_call_a_function_of_its_own_name():
    assert values(own.Namesake()) == [("(1) y", 0.5)]


def test_parts_that_are_called_have_names():
    found = [path.rpartition(" / ")[0] for path in paths(own.Chain.example())]
    assert {*found} == {"part0", "parts[1]", ""}
    assert paths(own.Chain((own.Chain.example(),)))[0] == "part0 / part0 / (1) p"
    assert paths(own.Sub())[0] == "pool / (1) p"


def test_tagged_helpers_have_the_name_they_are_given_or_their_own():
    found = paths(own.Named())
    assert found[:6] == ["left / (1) r", "(1) y", "right / (1) r", "(2) y", "doubled / (1) d", "(3) y"]


def test_free_variables_are_those_of_the_function():
    factor = 3.0

    class Scaled(own.Own):
        def forward(self, params, x):
            y = factor * x  # (1)
            return Pass(y, lambda dy: (factor * dy, {}))

    module = Scaled()
    assert values(module) == [("(1) y", 3)]
    factor = 5.0
    assert values(module) == [("(1) y", 5)]


SOURCE = """
from npattn import ops
from npattn.module import Pass
from tests.tracing.own import Own

class System(Own):
    def forward(self, params, x):
        y, back = ops.relu(x)  # (1)
        return Pass(y, lambda dy: (back(dy), {}))
"""


def test_a_system_without_a_text_has_its_primitives_as_steps():
    namespace = {"__name__": "nowhere"}
    exec(compile(SOURCE, "<no file>", "exec"), namespace)
    assert paths(namespace["System"]()) == ["(1) relu", "(1') dx"]


def import_text(folder, name, text, monkeypatch):
    path = folder / f"{name}.py"
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module, path


def test_a_text_that_has_changed_since_is_not_believed(tmp_path, monkeypatch):
    module, path = import_text(tmp_path, "changing", SOURCE, monkeypatch)
    path.write_text(SOURCE.replace("ops.relu(x)", "ops.sigmoid(x)"), encoding="utf-8")
    linecache.checkcache()
    steps = trace(module.System(), {}, X)
    assert [step.path for step in steps.steps] == ["(1) relu"]
    np.testing.assert_array_equal(steps.run.output, np.maximum(X, 0))


def test_a_file_that_is_named_as_a_page_of_ours_has_no_page(tmp_path, monkeypatch):
    module, _ = import_text(tmp_path, "channel", SOURCE, monkeypatch)
    assert module.System.derivation == "derivations/channel.md"
    assert trace(module.System(), {}, X)["(1) y"].equation is None


def test_what_another_module_computes_for_a_system_without_tags_is_seen(tmp_path, monkeypatch):
    text = "from npattn import ops\ndef helper(x):\n    return ops.relu(x)\n"
    module, _ = import_text(tmp_path, "elsewhere", text, monkeypatch)

    class Calling(own.Own):
        def forward(self, params, x):
            y, back = module.helper(x)
            return Pass(y, lambda dy: (back(dy), {}))

    steps = trace(Calling(), {}, X)
    steps.backward(X)
    assert [step.path for step in steps.steps] == ["(1) relu", "(1') dx"]
    assert steps["(1) relu"].line == "y, back = module.helper(x)"


def test_a_step_is_found_by_its_path_or_what_may_be_meant_is_said():
    steps = trace(own.Tagged(), {}, X)
    assert steps["(1) p"] is steps.steps[0]
    with pytest.raises(KeyError, match=r"no step '\(2\) halve'; did you mean '\(2\) half'\?"):
        steps["(2) halve"]
    with pytest.raises(KeyError, match=r"is the path of 2 steps"):
        steps["(4) q"]


@pytest.mark.parametrize("wrong", [EfficientChannelAttention, None, "eca"])
def test_what_is_no_system_is_refused(wrong):
    with pytest.raises(TypeError, match=r"trace: module is .*; expected a system, such as"):
        trace(wrong, {}, X)


def test_bad_arguments_are_refused_as_a_call_refuses_them():
    module = EfficientChannelAttention(channels=3)
    for arguments in [(module.init(), X), ({}, X), (module.init(),)]:
        with pytest.raises((TypeError, ValueError)) as called:
            module(*arguments)
        with pytest.raises(type(called.value)) as traced:
            trace(module, *arguments)
        assert str(traced.value) == str(called.value)
    module = EfficientChannelAttention(channels=2)
    steps = trace(module, module.init(), X)
    with pytest.raises(ValueError, match="dy has shape"):
        steps.backward(X[0])
    assert steps.steps == steps.forward_steps


def test_every_way_back_adds_its_steps():
    module = EfficientChannelAttention(channels=2)
    params, inputs = generic_values(module)
    steps = trace(module, params, inputs["x"])
    for _ in range(2):
        steps.backward(inputs["x"])
    assert [step.path for step in steps.backward_passes[0].steps] == [
        step.path for step in steps.backward_passes[1].steps
    ]
    assert len(steps.steps) == 4 + 2 * 6
    assert repr(steps).endswith("4 steps forward, 2 passes back)")
