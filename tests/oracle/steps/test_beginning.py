"""Where what is wrong begins: the first step that is off; without steps, those that can have spoilt the results."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

import npattn
from npattn import ops
from npattn.module import Pass
from npattn.ops.context import replacing
from npattn.oracle import generic_values, golden
from npattn.oracle.budgets import Given, named_results
from npattn.oracle.comparison import Judgement
from npattn.oracle.steps import where_it_begins
from npattn.oracle.steps.recorded import Recorded, is_judged, name_steps
from npattn.oracle.steps.upstream import feeds_of, find_suspects, number_of
from tests.own_systems import CausalHead, NormGate

SIZES = {"batch": 2, "height": 3, "width": 5}
KEYS = "eca", "residual", "soft-hard", "sdpa", "coordinate"
MODULES = {key: npattn.CATALOGUE[key].example() for key in KEYS}
MODULES |= {system.__name__: system.example() for system in (CausalHead, NormGate)}


@pytest.fixture(scope="module")
def eca():
    return golden(MODULES["eca"], **SIZES, certify=False)


def given_of(module):
    params, inputs = generic_values(module, **SIZES)
    random = np.random.RandomState(0)
    upstream = {name: random.standard_normal(shape) for name, shape in module.output_shapes(**SIZES).items()}
    return Given(params, inputs, upstream)


def perturbed(call, *, backward):
    """A handler that moves what the primitive's call of that number computes, or the gradients that come back."""
    calls, random = itertools.count(), np.random.RandomState(1)

    def move(value):
        if isinstance(value, tuple):
            return tuple(map(move, value))
        if not hasattr(value, "dtype") or value.dtype.kind != "f":
            return value
        return value * (1 + 0.1 * random.random_sample(value.shape))

    def handle(primitive, arguments, options):
        result = primitive.definition(*arguments, **options)  # its own calls are no calls of the system
        if next(calls) != call or not (isinstance(result, tuple) and callable(result[-1])):
            return result
        if backward:
            return result[0], lambda *dy, **options: move(result[1](*dy, **options))
        return move(result[0]), result[1]

    return handle


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("key", MODULES)
def test_what_moves_with_a_step_is_what_is_made_from_it(key, backward):
    module = MODULES[key]
    given, steps = given_of(module), {}

    def keep(found):
        steps.update({name: one.value for name, one in name_steps(found).items() if is_judged(one.value)})
        return {}

    def run(call):
        steps.clear()
        with replacing(perturbed(call, backward=backward)):
            results = named_results(Recorded(module, keep), given)
        return results, dict(steps)

    def moved(found, right):
        return [name for name in found if not np.array_equal(found[name], right[name], equal_nan=True)]

    feeds, (right, right_steps) = feeds_of(module, given), run(-1)
    tried = 0
    for call in range(12):
        results, found = run(call)
        first = moved(found, right_steps)
        if first:
            tried += 1
            together = [name for name in first if number_of(name) == number_of(first[0])]
            # What comes back may serve forward as well, as a scatter does; then no step is the first.
            results = {name: value for name, value in results.items() if name.endswith(".grad") or not backward}
            assert {*moved(results, right)} <= {one for name in together for one in feeds[name]}
    assert tried > 0


def test_the_first_step_that_is_off_is_named_with_its_line(eca):
    found = {name: step.expected for name, step in eca.steps().items()}
    wrong = found | {name: 2 * found[name] for name in ("(3) a", "(4) y", "(3') dz")}
    report = eca.compare(wrong | {"output": 2 * eca.expected["output"]})
    assert report.first_wrong == "(3) a"
    assert report.begins == ["begins at (3) a: the 2 before it are right", "  a, back_sigmoid = ops.sigmoid(z)"]
    assert "\n".join(report.begins) in str(report)
    assert list(report.judgements)[:6] == ["(1) p", "(2) z", "(3) a", "(4) y", "output", "(4') dx"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["(1) p"], "begins at (1) p: it is the first of all"),
        (["(1) p", "(2) z"], "begins at (2) z: the one before it is right"),
        (["(3') dz"], "the first step that is off is (3') dz; of the 6 before it none is given"),
        (
            ["(2) z", "(4') da", "(3') dz"],
            "the first step that is off is (3') dz; of the 6 before it 2 are given, and right",
        ),
    ],
)
def test_what_is_known_of_the_steps_before_is_said(eca, given, words):
    found = {name: eca.steps()[name].expected for name in given}
    assert eca.compare(found | {given[-1]: 2 * found[given[-1]]}).begins[0] == words


def wrong_results(case, names):
    return {name: value * (1.5 if name in names else 1) for name, value in case.expected.items()}


@pytest.mark.parametrize(
    ("names", "lines"),
    [
        (
            ["x.grad", "conv.weight.grad"],
            [
                "if it is one mistake, it begins in one of (4'), (3'), (2'), the reading of dy of",
                "  output: upstream of all that is wrong and of nothing that is right",
                "or, if what is right hides it or recomputes it, in (1), (2), the reading of",
                "  conv.weight, x",
            ],
        ),
        (["output"], ["begins in one of (4), the writing of output: upstream of all that is wrong and"]),
        (
            ["output", "x.grad", "conv.weight.grad"],
            [
                "if it is one mistake, it begins in (4) with (4'): upstream of all that is wrong",
                "  and of nothing that is right",
                "or, if what is right hides it or recomputes it, in (1), (2), (3) with (3'), the",
                "  reading of conv.weight, x",
            ],
        ),
        (
            ["output", "conv.weight.grad"],
            [
                "no one step is upstream of all that is wrong and of nothing that is right: more",
                "  than one mistake, or one that what is right hides or recomputes, in (1), (2),",
                "  (3) with (3'), (4) with (4'), the reading of conv.weight, x",
            ],
        ),
    ],
)
def test_results_alone_tell_which_steps_can_have_spoilt_them(eca, names, lines):
    report = eca.compare(wrong_results(eca, names))
    assert report.begins[: len(lines)] == lines
    assert report.first_wrong is None


def test_a_mistake_made_in_several_places_may_begin_in_the_last_step_of_each_result():
    """Of a group of heads neither dk nor dv is summed, each by a line of its own."""
    module = npattn.ScaledDotProductAttention(heads=4, key_heads=2, head_dim=4)
    case = golden(module, batch=1, height=5, width=5, certify=False)
    lines = case.compare(wrong_results(case, ["key.grad", "value.grad"])).begins
    assert "or, if it was made in several places, in each of (2'), (1')" in lines
    assert not any("several places" in line for line in case.compare(wrong_results(case, ["key.grad"])).begins)


def test_of_many_suspects_the_last_are_named_and_the_others_counted():
    case = golden(npattn.CBAM.example(), batch=1, height=4, width=4, certify=False)
    wrong = [name for name in case.expected if name.startswith("SpatialGate") and name.endswith(".grad")]
    clear, hidden = " ".join(line.strip() for line in case.compare(wrong_results(case, wrong)).begins).split(" or, ")
    assert clear.startswith("if it is one mistake, it begins in (16'): ")
    listed = hidden.partition("in ")[2].split(", ")
    assert listed[6:] == ["10 before these", "the reading of 9 parameters", "x", "dy of output"]
    assert listed[5] == "SpatialGate / (12')"


def test_steps_that_are_right_are_no_suspects(eca):
    steps = {name: eca.steps()[name].expected for name in ("(4') da", "(3') dz")}
    report = eca.compare(wrong_results(eca, ["x.grad", "conv.weight.grad"]) | steps)
    assert report.begins[0] == "all 2 steps given are right"
    assert "(3')" not in " ".join(report.begins[1:])
    assert "(2')" in " ".join(report.begins[1:])


def test_a_step_that_is_nearly_off_is_named_beside_the_first_that_is(eca):
    found = {name: step.expected for name, step in eca.steps().items()}
    sizes = {name: eca.steps()[name].limits[0] * eca.steps()[name].budget.flat[0] for name in ("(2) z", "(3) a")}
    for name, share in (("(2) z", 0.9), ("(3) a", 1.1)):
        found[name] = found[name].copy()
        found[name].flat[0] += share * sizes[name]
    assert (
        eca.compare(found).begins[0]
        == "begins at (3) a: the 2 before it are right; or already at (2) z, near its limit"
    )


def test_a_step_that_is_nearly_off_and_feeds_other_results_alone_is_not_named(eca):
    """What comes back to the weight is not what comes back to the map."""
    found = {name: step.expected for name, step in eca.steps().items()}
    of_weight, dx = eca.steps()["(2') conv.weight.grad"], eca.steps()["(1') dx"]
    found["(2') conv.weight.grad"] = of_weight.expected + 0.7 * of_weight.limits[1] * of_weight.budget
    found["(1') dx"] = dx.expected + 2 * dx.limits[0] * dx.budget
    assert eca.compare(found).begins[0] == f"begins at (1') dx: the {len(found) - 1} before it are right"


def test_what_cannot_be_judged_is_not_called_right(eca):
    case, steps = replace(eca), eca.steps()
    beyond = replace(steps["(3') dz"], budget=np.full_like(steps["(3') dz"].budget, np.inf))
    case.keep_steps(steps | {"(3') dz": beyond})
    given = {name: steps[name].expected for name in steps}
    assert case.compare(given | {"(2') dp": -given["(2') dp"]}).begins[0] == (
        "the first step that is off is (2') dp; of the 7 before it 6 are given, and right"
    )
    results = wrong_results(case, ["x.grad", "conv.weight.grad"])
    report = case.compare(results | {"(3') dz": given["(3') dz"], "(4') da": given["(4') da"]})
    assert report.begins[0] == "the step given is right"
    assert "one of (3'), (2')" in " ".join(report.begins)
    unknown = replace(case, budget=case.budget | {"output": np.full_like(case.budget["output"], np.inf)})
    assert "hides" not in " ".join(unknown.compare({"output": results["output"], "x.grad": results["x.grad"]}).begins)


def test_right_results_say_nothing(eca):
    assert eca.compare(eca.expected).begins == []


def test_what_no_step_can_have_spoilt_alone_is_said():
    feeds = {"(1) a": ["y"], "(2) b": ["z"]}
    suspects = find_suspects(feeds, ["y", "z"], [])
    assert (suspects.clear, suspects.hidden) == ((), ())


class Untraceable(npattn.EfficientChannelAttention):
    """Leaves NumPy's protocols: what its results are made from can't be followed."""

    def forward(self, params, x):
        y, back = ops.relu(x)  # (1)
        scale = np.array(2.0)
        y = np.asarray(y) * scale if type(x).__name__ == "FlowingArray" else y * scale  # (2)

        def backward(dy):
            dx = back(dy * 2.0)  # (1')
            return dx, {"conv.weight": np.zeros_like(params["conv.weight"])}

        return Pass(y, backward)


def test_what_cannot_be_followed_is_made_from_all():
    module = Untraceable(channels=4)
    feeds = feeds_of(module, given_of(module))
    assert "output" in feeds["(1) y"]
    assert "output" in feeds["(2) y"]


@pytest.mark.parametrize("name", ["output", "(3) a"])
def test_what_zeros_would_pass_for_tells_no_more_of_where_it_begins_than_if_it_were_not_given(eca, name):
    right = Judgement(name, worst=0, rms=0, worst_limit=1, rms_limit=1)
    wrong = {"x.grad": Judgement("x.grad", worst=9, rms=9, worst_limit=1, rms_limit=1)}
    told = where_it_begins(eca, wrong | {name: right})
    assert told != where_it_begins(eca, wrong) == where_it_begins(eca, wrong | {name: replace(right, zeros_pass=True)})
