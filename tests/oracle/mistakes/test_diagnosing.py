import dataclasses
import functools
import re
import time
import warnings
from types import SimpleNamespace

import numpy as np
import pytest

import npattn
from npattn import Module, Pass, ops
from npattn.fields import integer
from npattn.oracle import golden, mistakes
from npattn.oracle.budgets import Given, named_results
from npattn.oracle.mistakes import diagnosing
from npattn.oracle.mistakes.candidates import Candidate
from npattn.oracle.mistakes.catalogue import MISTAKES
from npattn.oracle.mistakes.distances import Misfit
from npattn.oracle.mistakes.lines import rules_of_lines
from npattn.oracle.mistakes.matching import Search
from npattn.oracle.mistakes.mistake import value
from npattn.oracle.mistakes.pairing import pairs
from npattn.oracle.mistakes.planting import EVERY, planted
from npattn.oracle.mistakes.twins import unlike
from tests.benchmarks import kernels
from tests.oracle.mistakes.searching import diagnosed
from tests.own_systems import CausalHead


def run(module, *given):
    return named_results(module, Given(*given))


def find(name, way):
    return next(one for one in MISTAKES if str(one) == name and one.way == way)


@functools.cache
def case_of(key, dtype="float32"):
    return golden(npattn.CATALOGUE[key].example(), batch=2, height=7, width=5, dtype=dtype, certify=False)


def results_with(case, *places):
    """The results of a kernel in float32 with mistakes, each in the call of its number."""
    one, site = places[0]
    wrong = planted(run, places) if one.primitive else mistakes.faulty(run, one, site)
    with np.errstate(all="ignore"):
        return kernels.rounded(wrong(case.module, *kernels.given(case)), case.format)


KNOWN = [
    ("eca", "conv1d: flipped kernel", "carried", 0, "(2)"),
    ("eca", "conv1d: flipped kernel", "forward", 0, "(2)"),
    ("eca", "gate: gradient: gate detached", "backward", 0, "(4')"),
    ("mhsa", "dot_product_attention: gradient: scale missing in dq and dk", "backward", 0, "(3')"),
    ("sdpa", "masked_attention: gradient: scale missing in dq and dk", "backward", 0, "(3')"),
    ("se", "relu: GELU", "carried", 0, "(3)"),
    ("pam", "dot_product_attention: queries and keys swapped", "carried", 0, "(4)"),
    ("cbam-channel", "pass: sigmoid before the sum of the pools", "carried", 0, ""),
    ("cbam-channel", "pass: pools added before the shared layers", "carried", 0, ""),
    ("pam", "pass: γ on the residual as well", "carried", 0, ""),
]


@pytest.mark.parametrize(("key", "name", "way", "site", "step"), KNOWN)
def test_a_mistake_is_named_with_its_step(key, name, way, site, step):
    case = case_of(key)
    found = diagnosed(case, results_with(case, (find(name, way), site)))
    assert (str(found[0].mistakes[0]), found[0].steps) == (name, (step,))
    assert found.sure
    assert name.partition(": ")[2] in " ".join(str(found).split())


def test_a_kernel_without_a_mistake_has_no_suspects():
    case = case_of("eca")
    found = diagnosed(case, case.expected)
    assert found.right
    assert list(found) == []


@pytest.mark.parametrize(
    "change",
    [lambda y: y[..., :1], lambda y: y.astype(int), lambda y: y.tolist(), lambda y: y * 1j],
    ids=["shape", "int", "list", "complex"],
)
def test_what_has_no_numbers_to_try_mistakes_on_is_not_called_right(change):
    case = case_of("eca")
    results = case.expected | {"output": change(case.expected["output"])}
    assert not case.compare(results).passed
    found = diagnosed(case, results)
    assert not found.right
    assert str(found).startswith("no mistake was tried: ")
    assert all("nothing is wrong" not in line for line in case.explain(results))


@pytest.mark.parametrize(("number", "share"), [(np.nan, 1), (np.nan, 0.1), (np.inf, 0.1), (-np.inf, 1), (1e300, 0.1)])
def test_results_that_are_not_finite_are_diagnosed_without_a_warning(number, share):
    case = case_of("eca", "bfloat16")
    random = np.random.RandomState(0)
    results = {name: np.where(random.random_sample(y.shape) < share, number, y) for name, y in case.expected.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = case.explain(results)
    assert not any("could be tried" in line for line in found)


REARRANGED = {
    "channels permuted": lambda y: y[:, np.random.RandomState(0).permutation(y.shape[1])],
    "rows and columns exchanged": lambda y: y.swapaxes(2, 3),
    "shifted by 1 along its columns": lambda y: np.roll(y, 1, 3),
    "1.5 times expected": lambda y: 1.5 * y,
    "wrong in odd columns alone, where it is expected with the other sign": lambda y: y * (-1) ** np.arange(y.shape[3]),
}


@pytest.mark.parametrize("reading", REARRANGED)
def test_no_nearest_mistake_is_named_where_a_result_reads_exactly(reading, monkeypatch):
    case = golden(npattn.EfficientChannelAttention(channels=8), height=6, width=6, certify=False)
    results = {"output": REARRANGED[reading](case.expected["output"])}
    assert reading in case.compare(results).readings["output"]
    monkeypatch.setattr(Search, "singles", lambda self: [])
    monkeypatch.setattr(diagnosing, "pairs", lambda search: [])
    monkeypatch.setattr(diagnosing, "roundings", lambda search: ([], False))
    nearest = Candidate(((find("conv1d: flipped kernel", "carried"), 0),), Misfit({"output": 2.0}, {"output": 4.0}))
    monkeypatch.setattr(Search, "find_places", lambda self, _: self.tried.append(nearest))
    assert diagnosed(case, results).nearest is None
    assert diagnosed(case, {"output": case.expected["output"] ** 2}).nearest is not None


@pytest.mark.parametrize(("distance", "told"), [(1.2, True), (2.9, True), (3.1, False), (40.0, False)])
def test_no_mistake_that_is_far_off_is_told_as_the_nearest(distance, told, monkeypatch):
    case = case_of("eca")
    found = nothing_fits(case, monkeypatch, Misfit({"output": distance}, {"output": 4.0}))
    assert (found.nearest is not None) == told
    assert ("the nearest is" in str(found)) == told


def nothing_fits(case, monkeypatch, misfit, both=()):
    """Diagnose a result of which one mistake alone is so far off, and such pairs fit."""
    one = (find("conv1d: flipped kernel", "carried"), 0)
    monkeypatch.setattr(Search, "singles", lambda self: [])
    monkeypatch.setattr(diagnosing, "pairs", lambda search: list(both))
    monkeypatch.setattr(diagnosing, "roundings", lambda search: ([], False))
    monkeypatch.setattr(Search, "find_places", lambda self, _: self.tried.append(Candidate((one,), misfit)))
    noise = np.random.RandomState(0).standard_normal(case.expected["output"].shape)
    return diagnosed(case, dict.fromkeys(misfit.distances, noise))


@pytest.mark.parametrize("distance", [1.2, 1.8])
def test_a_mistake_that_is_hardly_further_off_than_it_may_be_comes_before_two_and_none_is_sure(distance, monkeypatch):
    case = case_of("eca")
    two = (find("gate: left out", "carried"), 0), (find("gate: gradient: gate detached", "backward"), 0)
    pair = Candidate(two, Misfit({"output": 0.5, "x.grad": 0.5}, {"output": 0.1, "x.grad": 0.1}))
    misfit = Misfit({"output": 0.9, "x.grad": distance}, {"output": 1.0, "x.grad": 4.0})
    found = nothing_fits(case, monkeypatch, misfit, [pair])
    assert [len(one.mistakes) for one in found] == ([1, 2] if distance < 1.5 else [2])
    assert found.sure == (distance > 1.5)
    assert str(found).startswith("it may be" if distance < 1.5 else "it looks like")


def test_a_mistake_that_makes_errors_huge_is_not_the_nearest():
    """Weights by a logsumexp that lacks the maximum are so large that within their errors all would fit."""
    case = golden(npattn.ScaledDotProductAttention(heads=2, head_dim=8), height=40, width=40, certify=False)
    wrong = case.expected["key.grad"].copy()
    wrong[..., -16:, ::2] = 0
    assert diagnosed(case, dict(case.expected) | {"key.grad": wrong}).nearest is None


def test_no_mistake_is_told_of_a_gradient_that_never_came():
    case = case_of("eca")
    for results in (dict(case.expected), {}):
        found = diagnosed(case, results | {"conv.weight.grad": None})
        assert not found.right
        assert list(found) == []
        assert str(found) == "no mistake was tried: nothing is wrong but that conv.weight.grad is None"
    forgotten = results_with(case, (find("gate: gradient: gate forgotten in dx", "backward"), 0))
    both = diagnosed(case, forgotten | {"conv.weight.grad": None})
    assert "gate forgotten in dx" in both[0].name
    assert both[0].results == ("x.grad",)


def test_none_is_named_where_none_fits_but_the_nearest():
    case = case_of("eca")
    noise = np.random.RandomState(0).standard_normal(case.expected["x.grad"].shape)
    found = diagnosed(case, case.expected | {"x.grad": noise})
    assert list(found) == []
    assert not found.sure
    assert "no known mistake" in str(found)


def test_mistakes_that_the_results_do_not_tell_apart_are_all_named_and_what_would_is_said():
    case = case_of("eca")
    both = [find("conv1d: flipped kernel", way) for way in ("forward", "carried")]
    found = diagnosed(case, {"output": results_with(case, (both[0], 0))["output"]})
    assert found.alike >= 2
    assert {one.way for suspect in found for one in suspect.mistakes} >= {"forward", "carried"}
    assert "x.grad" in str(found)


def test_two_mistakes_are_found_together():
    case = case_of("se")
    first, second = (
        find("gate: gradient: gate forgotten in dx", "backward"),
        find("linear: gradient: bias lost", "backward"),
    )
    results = results_with(case, (first, 0), (second, 1))
    found = diagnosed(case, results)
    assert len(found[0].mistakes) == 2
    assert {str(one) for one in found[0].mistakes} == {str(first), str(second)}


def test_a_mistake_of_forward_and_one_of_backward_are_found_together():
    case = case_of("se")
    first, second = find("relu: GELU", "carried"), find("linear: gradient: bias lost", "backward")
    found = diagnosed(case, results_with(case, (first, 0), (second, 1)))
    assert {(str(one), one.way) for one in found[0].mistakes} == {(str(one), one.way) for one in (first, second)}


@pytest.mark.parametrize(
    "back",
    ["global_max_pool: gradient: to the last maximum", "pass: gradient: averaged over the batch"],
)
def test_a_mistake_of_several_steps_and_one_of_backward_are_found_together(back):
    module = npattn.CBAMChannelGate(channels=16, reduction=2)
    case = golden(module, batch=2, height=4, width=3, dtype="float32", values="ties", certify=False)
    first, second = find("pass: pools added before the shared layers", "carried"), find(back, "backward")
    with np.errstate(all="ignore"):
        wrong = planted(run, [(first, 0), (second, 0)])(case.module, *kernels.given(case))
    found = diagnosed(case, {name: a for name, a in wrong.items() if name not in case.maps})
    assert {str(one) for one in found[0].mistakes} == {str(first), str(second)}


def test_of_two_mistakes_none_undoes_what_the_other_does_to_a_right_result():
    """The sign of x's second term is wrong, and nothing else; g's would be right again, were tanh's slope negative."""
    case = golden(TwoSums(), batch=2, height=3, width=4, dtype="float32", certify=False)
    x, dy = (np.array(a, np.float64) for a in (case.inputs["x"], case.upstream["output"]))
    found = diagnosed(case, case.expected | {"x.grad": dy - 2 * x * dy})
    assert not any(len(one.mistakes) > 1 for one in found)


@dataclasses.dataclass(frozen=True)
class TwoSums(Module):
    channels: int = integer(least=1, default=4)

    def input_shapes(self, batch, height, width):
        return dict.fromkeys(("x", "g"), (batch, self.channels, height, width))

    def forward(self, params, x, g):
        t, back_tanh = ops.tanh(g)  # (1)
        y = x + x * x + g + t  # (2)

        def backward(dy):
            dx, dg = (r + c for r, c in ((dy, 2 * x * dy), (dy, back_tanh(dy))))  # (2')
            return (dx, dg), {}

        return Pass(y, backward)


def test_two_mistakes_of_backward_are_found_of_which_one_alone_explains_some_results():
    """Both make x.grad wrong; the gradients of queries' and keys' layers are those of one of them."""
    case = case_of("pam")
    first = find("dot_product_attention: gradient: sum left out", "backward")
    second = find("add: gradient: residual detached", "backward")
    found = diagnosed(case, results_with(case, (first, 0), (second, 0)))
    assert {str(one) for one in found[0].mistakes} == {str(first), str(second)}


def test_pairs_are_tried_as_long_as_there_is_time():
    case = case_of("se")
    places = [
        (find("gate: gradient: gate forgotten in dx", "backward"), 0),
        (find("linear: gradient: bias lost", "backward"), 1),
    ]
    given = {name: a.astype(np.float64) for name, a in results_with(case, *places).items() if name not in case.maps}
    search = Search(case, given)
    search.find_places([mistake for mistake, _ in places])
    search.tried = [search.try_mistakes(place, whole=True) for place in places]
    search.deadline = 0.0
    assert pairs(search) == []
    assert not search.complete
    search.deadline = np.inf
    assert [set(one.mistakes) for one in pairs(search)] == [set(places)]


@pytest.mark.parametrize(
    ("freedom", "places", "complete", "sure"),
    [(20, 1, True, False), (22, 1, True, True), (22, 1, False, False), (26, 1, False, True), (22, 2, True, False)],
)
def test_one_is_named_surely_where_results_say_more_than_it_takes_to_choose_it(freedom, places, complete, sure):
    """Squares of 3 in place of 1 say ½ log₂ 3 bits a free number; to choose among 100 takes 6.6, and 10 more.

    Where there was no time to try more than these, all 1000 count; of pairs there are 100 by 100.
    """
    search = SimpleNamespace(
        case=SimpleNamespace(freedom={"y": freedom}, expected={"y": np.zeros(1000)}),
        ruler=SimpleNamespace(results={"y": np.zeros(1000)}),
        right=Misfit({}, {"y": 3.0}),
        wrong={"y"},
        tried=range(100),
        places={"mistake": range(1000)},
        complete=complete,
    )
    assert diagnosing.says_enough(search, Candidate((("mistake", 0),) * places, Misfit({}, {"y": 0.0}))) == sure


@pytest.mark.parametrize("several_images", [False, True])
def test_what_concerns_images_comes_behind_its_twin_where_there_is_but_one(several_images):
    of_images, other = find("gate: gate of image 0 for all", "forward"), value("gate", "made by rule", lambda y, *_: y)
    same = {"output": np.ones(3)}
    twins = [Candidate(((one, 0),), Misfit({}, {}), same) for one in (other, of_images)]
    [kept] = unlike(twins, several_images=several_images)
    assert kept.mistakes[0][0] is (of_images if several_images else other)


def test_a_mistake_in_the_last_step_is_one_of_forward_alone():
    case = case_of("pam")
    wrong = find("gate: left out", "forward")
    last = max(mistakes.sites(run, [wrong], case.module, *kernels.given(case, np.float64))[wrong])
    found = diagnosed(case, results_with(case, (wrong, last)))
    assert found[0].mistakes == (wrong,)


def test_mistakes_that_are_the_same_by_these_hyperparameters_are_told_with_each_other():
    """16 channels of two heads: 8 padded to a tile are as many as those of all heads."""
    case = golden(npattn.MultiHeadSelfAttention(channels=16, heads=2), batch=1, height=4, width=5, dtype="float32")
    wrong = find("dot_product_attention: scaled by the channels of all heads", "carried")
    [first, *_] = found = diagnosed(case, results_with(case, (wrong, 0)))
    names = {one.name for one in (*first.mistakes, *first.twins)}
    assert {"scaled by the channels of all heads", "scaled by the padded head dim"} <= names
    assert "; here the same: scaled by the" in " ".join(str(found).split())


@pytest.mark.parametrize("name", ["bfloat16", "tf32"])
def test_arithmetic_in_a_narrower_format_is_told_from_mistakes_of_mathematics(name):
    case = case_of("se")
    results = npattn.oracle.budgets.run_on(
        npattn.oracle.rounding.Rounding(npattn.oracle.FORMATS[name]),
        case.module,
        Given(case.params, case.inputs, case.upstream),
    )
    found = diagnosed(case, results)
    assert all(re.search(r" in (tf32|float16|bfloat16)$", str(mistake)) for one in found for mistake in one.mistakes)
    assert any(name in one.name for one in found)


def test_a_failing_report_ends_with_what_it_looks_like():
    case = case_of("eca")
    with pytest.raises(AssertionError, match=r"(?s)it looks like:.*conv1d: flipped\s+kernel"):
        case.assert_matches(results_with(case, (find("conv1d: flipped kernel", "carried"), 0)))


def test_a_step_is_left_out_by_rule_in_a_system_that_nobody_has_seen():
    class Own(npattn.SqueezeExcitation):
        def forward(self, params, x):
            p, back_pool = ops.global_average_pool(x)
            h, back_norm = ops.softmax(p)
            y, back_gate = ops.gate(x, h)

            def backward(dy):
                dx, dh = back_gate(dy)
                return back_pool(back_norm(dh), accumulate_into=dx), {}

            return npattn.Pass(y, backward)

        def parameters(self):
            return {}

    case = golden(Own(channels=4), batch=2, height=3, width=4, dtype="float32", certify=False)
    wrong = ops.gate(case.inputs["x"], ops.global_average_pool(case.inputs["x"])[0])[0]
    found = diagnosed(case, {"output": wrong})
    assert any(one.name.startswith("softmax: step left out") or "step left out" in one.name for one in found)


def test_a_search_ends_in_time():
    case = case_of("pam")
    began = time.process_time()
    found = mistakes.diagnose(case, case.expected | {"output": -case.expected["output"]}, seconds=0.0)
    assert not found.complete
    assert time.process_time() - began < 30


def test_passes_run_again_compute_the_same_bits_as_passes_from_the_start():
    case = case_of("pam")
    search = Search(case, dict(case.expected))
    search.find_places(MISTAKES)
    with np.errstate(all="ignore"):
        for mistake, sites in list(search.places.items())[::25]:
            again = search.try_mistakes((mistake, sites[0]))
            with npattn.definitions():
                anew = mistakes.faulty(run, mistake, sites[0])(case.module, *search.given)
            if again is not None and again.results:
                for name, value in anew.items():
                    assert np.array_equal(again.results[name], value, equal_nan=True), mistake


def test_a_wrong_result_of_an_own_system_is_reported_with_what_it_looks_like():
    module = CausalHead(channels=4)
    case = npattn.oracle.golden(module, batch=1, height=3, width=4, dtype="float32")
    results = {name: -a if name.endswith(".grad") else a for name, a in case.expected.items()}
    with pytest.raises(AssertionError, match=r"results WRONG[\s\S]*it looks like:[\s\S]*sign turned"):
        case.assert_matches(results)


def test_a_system_that_mistakes_break_keeps_its_report(monkeypatch):
    case = npattn.oracle.golden(npattn.EfficientChannelAttention(channels=4), height=2, width=3)

    def fails(*_):
        raise RuntimeError("no room\nfor that")

    monkeypatch.setattr("npattn.oracle.case.diagnose", fails)
    with pytest.raises(AssertionError, match=r"1 of 1 results WRONG[\s\S]*no mistake could be tried: no room for that"):
        case.assert_matches({"output": 2 * case.expected["output"]})


def test_a_mistake_in_every_call_is_named_as_one():
    case = case_of("pam")
    found = diagnosed(case, results_with(case, (find("conv2d: lost bias", "carried"), EVERY)))
    assert found[0].steps == ("every (1), (2), (3)",)
    assert found.sure


def test_a_mistake_that_makes_errors_larger_is_found():
    """Sums over 35 positions in place of means: a step between has errors 35 times as large."""
    case = case_of("flexible")
    sums = find("global_average_pool: sum for mean", "forward")
    found = diagnosed(case, results_with(case, (sums, 0)))
    assert str(found[0].mistakes[0]) == str(sums)


def test_steps_that_are_given_tell_mistakes_apart():
    case = case_of("eca")
    flipped = find("conv1d: flipped kernel", "carried")
    z = case.steps()["(2) z"].expected
    results = results_with(case, (flipped, 0))
    given = {"output": results["output"], "x.grad": results["x.grad"]}
    assert "flipped kernel" in diagnosed(case, given)[0].name
    found = diagnosed(case, given | {"(2) z": z})
    assert not any("flipped kernel" in one.name for one in found)
    wrong = ops.conv1d(case.steps()["(1) p"].expected, case.params["conv.weight"][..., ::-1].astype(float))[0]
    found = diagnosed(case, given | {"(2) z": wrong})
    assert "flipped kernel" in found[0].name
    assert "(2) z" in found[0].results


def test_a_mistake_that_makes_results_huge_does_not_explain_others():
    """Affinities multiplied by their total, not divided by it: errors grow so much that anything would fit."""
    case = case_of("pcm", "bfloat16")
    found = diagnosed(case, case.expected | {"maps.grad": 0 * case.expected["maps.grad"]})
    assert not any("multiplied, not divided" in one.name for one in found)
    assert "of v lost" in found[0].name


def test_a_factor_is_not_taken_for_arithmetic_in_a_narrow_format():
    case = case_of("se")
    found = diagnosed(case, {name: 1.003 * a for name, a in case.expected.items() if name not in case.maps})
    assert not any(mistake.way == "precision" for one in found for mistake in one.mistakes)


def test_what_a_wrong_line_feeds_is_known():
    case = case_of("pam")
    search = Search(case, {name: case.expected[name] for name in ("output", "x.grad")})
    forward, backward = search.fed_from()["conv2d", 2]
    assert "output" in forward
    assert backward == {"x.grad", "value_conv.weight.grad", "value_conv.bias.grad"}


def test_a_mistake_that_does_not_fit_a_systems_lines_is_passed_over(monkeypatch):
    """A wrong line of DANet's head returns one output, where there are three."""
    monkeypatch.setattr(diagnosing, "MISTAKES", [])
    monkeypatch.setattr(diagnosing, "by_rule", lambda search: rules_of_lines(search.module))
    monkeypatch.setattr(diagnosing, "pairs", lambda search: [])
    monkeypatch.setattr(diagnosing, "roundings", lambda search: ([], False))
    module = npattn.DualAttentionHead(in_channels=8, classes=2)
    case = golden(module, batch=1, height=3, width=3, dtype="float32", certify=False)
    noise = np.random.RandomState(0).standard_normal(case.expected["output.0"].shape)
    assert mistakes.diagnose(case, {"output.0": noise}, seconds=600).complete


def test_a_step_is_named_that_would_tell_mistakes_apart():
    case = case_of("hard")
    name = "score.weight.grad"
    found = diagnosed(case, {name: np.zeros_like(case.expected[name])})
    assert found.alike > 1
    assert "would tell them apart" in str(found)


def test_what_is_wrong_in_the_output_alone_is_named_so():
    """Backward has read nothing of the mistake: all gradients are those of the right pass."""
    case = case_of("sk")
    wrong = results_with(case, (find("split: parts in the wrong order", "carried"), 0))
    right = {name: a for name, a in case.expected.items() if name not in case.maps}
    found = diagnosed(case, right | {"output": wrong["output"]})
    assert found[0].name == "(1) split: parts in the wrong order, in the output alone"
    assert found[0].mistakes[0].way == "output"
    assert found.sure
    carried = diagnosed(case, {name: a for name, a in wrong.items() if name not in case.maps})
    assert not any(mistake.way == "output" for one in carried for mistake in one.mistakes)


def test_a_mistake_of_several_steps_is_named_where_it_is_wrong_in_the_output_alone():
    case = case_of("pam")
    wrong = results_with(case, (find("pass: γ on the residual as well", "carried"), 0))
    found = diagnosed(case, dict(case.expected) | {"output": wrong["output"]})
    assert found[0].name == "γ on the residual as well, in the output alone"


def test_a_mistake_that_breaks_further_on_is_passed_over():
    """Up to where a forward pass may end it is near, so the whole of it is run."""
    case = case_of("sk")
    results = dict(case.expected) | {"output": 2 * case.expected["output"]}

    def broken(*_, **__):
        raise ValueError("other shapes")

    mistake = dataclasses.replace(find("split: parts in the wrong order", "carried"), apply=broken, plain=broken)
    search = Search(case, results)
    search.forward[str(mistake), 0] = search.ruler.measure(results)
    assert search.in_output_alone(mistake, 0) is None
