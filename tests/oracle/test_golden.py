import dataclasses
import functools
import importlib
import itertools
import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import npattn
from npattn import oracle
from npattn.module import as_tuple
from npattn.ops.context import CONTEXT, ORDINARY, Change
from npattn.oracle import golden, measurement
from npattn.oracle.budgets import Given, measuring, named_results, run_on, runs
from npattn.oracle.formats import FORMATS, representable
from npattn.oracle.primitives import PRIMITIVE_SYSTEMS
from npattn.oracle.progress import Passes
from npattn.oracle.rounding import Rounding
from npattn.oracle.steps import measure_steps
from tests.interrupts import interruptions
from tests.naming import for_each
from tests.own_systems import Table
from tests.strategies import SYSTEMS, cases, has_few_parameters, small_example

GOLDEN = importlib.import_module("npattn.oracle.golden")  # the function of this name hides the module
every_system = pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.key)
NARROW = dict(zip(SYSTEMS, itertools.cycle(["float16", "bfloat16"])))
"""Formats narrower than float32, which systems take turns with."""


def case_of(system, *, wide=False):
    """A case of a system's small instance, which many tests look at: to make it takes longer than to judge by it."""
    return made(system, wide)


@functools.cache
def made(system, wide):
    dtype = "float32" if wide else NARROW[system]
    return golden(small_example(system), batch=2, height=6, width=7, dtype=dtype, certify=wide)


wide_and_narrow = for_each("wide", [True, False])


def given_to(case):
    """What a case gives, in float64."""
    return Given(case.params, case.inputs, case.upstream).each(np.float64)


@pytest.mark.parametrize(("kind", "seed"), [(np.uint8, 6), (np.int16, 7), (np.uint32, 2**32 - 1)])
def test_numbers_of_numpy_make_the_same_case_as_pythons(kind, seed, tmp_path):
    module = npattn.ChannelAttention(4)
    sizes = {"batch": 1, "height": 16, "width": 16}  # as many positions as uint8 counts to, and one more
    case = golden(module, seed=kind(seed), **{name: np.uint8(n) for name, n in sizes.items()})
    expected = golden(module, seed=seed, **sizes)
    assert repr(case) == repr(expected)
    case.save(tmp_path / "a.npz")
    expected.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    for options in ({"force": "no"}, {"steps": 1}):
        with pytest.raises(TypeError, match="expected True or False"):
            case.save(tmp_path / "b.npz", **options)


@pytest.mark.parametrize(
    ("system", "dtype"), list(zip(SYSTEMS, itertools.cycle(FORMATS))), ids=lambda value: getattr(value, "key", value)
)
@pytest.mark.usefixtures("without_budgets")
def test_what_a_kernel_is_given_is_representable_and_of_the_right_shape(system, dtype):
    module = system.example()
    case = golden(module, batch=2, height=4, width=3, dtype=dtype, seed=1, certify=False)
    shapes = {
        "inputs": module.input_shapes(2, 4, 3),
        "params": module.parameter_shapes() | module.buffer_shapes(),
        "upstream": module.output_shapes(2, 4, 3),
    }
    for kind, expected in shapes.items():
        arrays = getattr(case, kind)
        assert {name: a.shape for name, a in arrays.items()} == expected
        for a in arrays.values():
            assert a.dtype == np.float32
            np.testing.assert_array_equal(a, representable(a.astype(np.float64), FORMATS[dtype]))


@every_system
def test_results_are_named_shaped_and_computed_as_the_module_does(system):
    case = case_of(system)
    module = case.module
    expected = named_results(module, given_to(case))
    assert list(case.expected) == list(case.budget) == list(case.freedom) == list(case.digits) == list(expected)
    run = module(given_to(case).params, *given_to(case).inputs.values())
    outputs = ["output"] if not isinstance(run.output, tuple) else [f"output.{i}" for i in range(len(run.output))]
    assert list(case.expected)[: len(outputs)] == outputs
    assert {f"{name}.grad" for name in module.parameter_shapes()} <= set(case.expected)
    for name, y in zip(outputs, as_tuple(run.output), strict=True):
        np.testing.assert_allclose(case.expected[name], y, rtol=1e-9, atol=1e-12)
    for name, value in case.expected.items():
        assert value.dtype == case.budget[name].dtype == np.float64
        assert value.shape == case.budget[name].shape
        assert (case.budget[name] > 0).all()


@every_system
@wide_and_narrow
def test_a_plain_kernel_in_the_format_passes(system, wide):
    case = case_of(system, wide=wide)
    case.assert_matches(run_on(Rounding(case.format), case.module, given_to(case)))


@every_system
@wide_and_narrow
def test_float32_with_results_rounded_to_the_format_passes(system, wide):
    case = case_of(system, wide=wide)
    single = named_results(case.module, given_to(case).each(np.float32))
    case.assert_matches({name: representable(np.float64(a), case.format) for name, a in single.items()})


@every_system
@wide_and_narrow
def test_pytorch_in_the_format_passes(system, wide):
    torch = pytest.importorskip("torch")
    tests = importlib.import_module(f"tests.attention.test_{system.__module__.rpartition('.')[2]}")
    case = case_of(system, wide=wide)
    module = case.module
    # Sliding windows one by one add up in the format: no kernel of interest does.
    dtype = "float32" if "sliding" in module.key or "flexible-seg" in module.key else case.format.name
    reference = tests.published(module)
    initial = reference.state_dict()
    reference.load_state_dict({n: torch.tensor(case.params[n]) if n in case.params else a for n, a in initial.items()})
    reference = reference.to(getattr(torch, dtype)).train(getattr(module, "training", False))
    leaves = {n: torch.tensor(x).to(getattr(torch, dtype)).requires_grad_() for n, x in case.inputs.items()}
    outputs = as_tuple(reference(*leaves.values()))
    torch.autograd.backward(outputs, [torch.tensor(d).to(getattr(torch, dtype)) for d in case.upstream.values()])
    found = dict(zip(case.upstream, outputs, strict=True))
    found |= {f"{n}.grad": leaf.grad for n, leaf in leaves.items() if f"{n}.grad" in case.expected}
    found |= {f"{n}.grad": p.grad for n, p in reference.named_parameters()}
    case.assert_matches(found)


FAULTS = {
    "one part in ten too large": lambda a: a * 1.1,
    "zero": lambda a: a * 0,
    "one element lost": lambda a: np.where(np.abs(a) == np.abs(a).max(), 0, a),
    "negated": np.negative,
}


@every_system
@for_each(("turn", "fault"), enumerate(FAULTS))
def test_wrong_results_are_refused_by_name(system, turn, fault):
    case = case_of(system, wide=NARROW[system] == "bfloat16")  # in which a tenth of some results is hardly seen
    wrong = {name: FAULTS[fault](value) for name, value in case.expected.items()}
    # Of the others a fault vanishes, or the format hardly holds it.
    seen = [name for name, y in wrong.items() if np.max(np.abs(y - case.expected[name]) / case.budget[name]) >= 10]
    assert len(seen) >= 2
    names = seen[turn % 2 :: 2]
    report = case.compare(case.expected | {name: wrong[name] for name in names})
    assert {n for n, judgement in report.judgements.items() if not judgement.passed} == {*names}


def test_the_same_seed_gives_the_same_case_and_another_one_another():
    module = npattn.SqueezeExcitation(8, 2)
    one, same, other = (golden(module, height=4, width=4, seed=seed) for seed in (1, 1, 2))
    for kind in ("inputs", "params", "upstream", "expected", "budget"):
        for name, a in getattr(one, kind).items():
            np.testing.assert_array_equal(a, getattr(same, kind)[name])
    assert (one.inputs["x"] != other.inputs["x"]).any()


def test_inputs_are_the_same_on_every_version():
    case = golden(npattn.EfficientChannelAttention(4), height=2, width=2, dtype="float32", seed=3)
    x = np.random.RandomState([3, 1])
    means = x.standard_normal((1, 4, 1, 1))
    np.testing.assert_array_equal(case.inputs["x"], (x.standard_normal((1, 4, 2, 2)) + means).astype(np.float32))


@every_system
def test_golden_values_are_right_to_many_more_digits_than_any_budget_needs(system):
    case = case_of(system, wide=True)
    if np.isnan(next(iter(case.digits.values()))):
        pytest.skip("longdouble has no more digits than float64 here")
    assert min(case.digits.values()) > 6
    exact = named_results(case.module, given_to(case).each(np.longdouble))
    for name, value in case.expected.items():
        assert (np.abs(value - exact[name]) < 1e-3 * case.budget[name]).all(), name


@pytest.mark.skipif(np.finfo(np.longdouble).eps == np.finfo(np.float64).eps, reason="longdouble has no more digits")
@pytest.mark.parametrize("system", [npattn.HardAttention, npattn.SoftHardAttention])
@for_each("dtype", ["float32", "bfloat16", "float16"])
def test_no_output_hangs_on_a_close_ranking_of_positions(system, dtype):
    for seed in range(4):
        case = golden(system.example(), height=12, width=12, dtype=dtype, seed=seed)
        size = np.sqrt(np.mean(case.expected["output"] ** 2))
        assert np.median(case.budget["output"]) < 8 * case.format.unit_roundoff * size


def test_once_two_draws_hang_on_near_ties_none_is_run_that_has_as_many(monkeypatch):
    allowed, ties = [], iter([5, 3, 0, 2, 4])

    def measure(*arguments, most_ties, anything, **options):
        if anything:
            return measurement.measure(*arguments, anything=anything, **options)
        allowed.append(most_ties)
        return measurement.Refused(crowded=False, near_ties=next(ties, 0))

    monkeypatch.setattr(GOLDEN, "measure", measure)
    golden(npattn.EfficientChannelAttention(4), height=2, width=3)
    assert allowed[:6] == [np.inf, np.inf, 2, 2, 1, 1]
    assert len(allowed) == GOLDEN.MAX_SWAYED_DRAWS


def test_a_draw_with_more_near_ties_than_are_allowed_is_refused_before_any_run():
    module, passes = npattn.EfficientChannelAttention(4), []
    case = golden(module, height=2, width=3, dtype="float32")
    options = {"certify": True, "anything": False, "steps": {}, "known": None, "overflow": "", "most_ties": -1}
    found = measurement.measure(
        module, given_to(case), case.format, 0, passes=Passes(lambda *count: passes.append(count)), **options
    )
    assert found == measurement.Refused(crowded=False, near_ties=0)
    assert not passes


few = st.integers(1, 3)


@given(
    cases(batch=few, height=few, width=few).filter(has_few_parameters),
    st.sampled_from(list(FORMATS)),
    st.integers(0, 100),
)
@settings(max_examples=10)
@example((npattn.ShuffleAttention(channels=2, groups=1), {}, {"x": np.zeros((1, 2, 1, 1))}), "float8_e4m3", 0)
def test_any_module_has_golden_cases(drawn, dtype, seed):
    module, _, inputs = drawn
    batch, _, height, width = next(iter(inputs.values())).shape
    with pytest.MonkeyPatch.context() as patch:  # other draws, while close decisions sway the outputs, are made alike
        patch.setattr(GOLDEN, "MAX_DRAWS", 2)
        patch.setattr("npattn.oracle.budgets.measuring.NUM_RUNS", 3)  # and so are further runs
        case = golden(module, batch=batch, height=height, width=width, dtype=dtype, seed=seed)
    if not case.compare(case.expected).passed:  # two draws may be too few to find one that the format can hold
        case = golden(module, batch=batch, height=height, width=width, dtype=dtype, seed=seed)
    judgements = case.compare(case.expected).judgements.values()
    assert all(judgement.worst == 0 for judgement in judgements)
    if dtype.startswith("float8"):  # a norm of a single number divides by √ε, and ε is 0 there
        judgements = [judgement for judgement in judgements if "can't hold" not in (judgement.reason or "")]
    assert all(judgement.passed for judgement in judgements)


@for_each(
    ("change", "error", "message"),
    [
        (
            {"module": npattn.PositionAttention},
            TypeError,
            "module is the class PositionAttention; expected an instance, such as PositionAttention.example",
        ),
        ({"batch": -1}, ValueError, "batch=-1; expected an integer of at least 0"),
        ({"height": 0}, ValueError, "height=0; expected an integer of at least 1"),
        ({"height": 10**30}, ValueError, "golden: x would be of shape .*; expected smaller sizes"),
        ({"height": 2.5}, TypeError, "height=2.5 is a float; expected an int"),
        ({"dtype": "int8"}, ValueError, "dtype='int8'"),
        ({"dtype": "fp8"}, ValueError, "float8_e4m3"),
        ({"dtype": 16}, TypeError, "dtype=16 is an int; expected a name or dtype"),
        ({"seed": -1}, ValueError, "seed=-1; expected an integer of at least 0"),
        ({"seed": None}, TypeError, "golden: seed=None is a NoneType; expected an int"),
        ({"seed": 2**32}, ValueError, "golden: seed=4294967296; expected an integer of at most"),
    ],
)
def test_bad_arguments_are_refused_with_a_reason(change, error, message):
    arguments = {"module": npattn.EfficientChannelAttention(4)} | change
    with pytest.raises(error, match=message):
        golden(**arguments)


@pytest.mark.parametrize(
    ("system", "dtype"),
    list(zip(SYSTEMS, itertools.cycle(["float16", *["float32"] * 9]))),  # in which far fewer passes are made
    ids=lambda one: getattr(one, "key", one),
)
def test_an_empty_batch_has_empty_results_and_gradients_that_are_0(system, dtype, monkeypatch):
    monkeypatch.setattr("npattn.oracle.budgets.measuring.NUM_RUNS", 2)  # they are all alike
    module = small_example(system)
    case = golden(module, batch=0, height=4, width=5, dtype=dtype, certify=False)
    shapes = named_results(module, given_to(case))
    assert {name: y.shape for name, y in case.expected.items()} == {name: y.shape for name, y in shapes.items()}
    assert all(not y.any() for y in case.expected.values())
    case.assert_matches(case.expected, require="all")
    for name in module.parameter_shapes():
        garbage = np.full(case.expected[f"{name}.grad"].shape, 1e-3)
        assert not case.compare({f"{name}.grad": garbage}).passed


@every_system
@pytest.mark.usefixtures("without_budgets")
def test_upstream_gradients_of_ones_are_ones_and_inputs_the_same(system):
    module = system.example()
    ones, generic = (golden(module, height=4, width=3, values=v, certify=False) for v in ("ones", "generic"))
    assert all((dy == 1).all() for dy in ones.upstream.values())
    for name, x in generic.inputs.items():
        np.testing.assert_array_equal(ones.inputs[name], x)


def test_a_case_says_briefly_what_it_is():
    case = golden(npattn.EfficientChannelAttention(4), height=2, width=3, dtype="bfloat16", seed=9)
    assert repr(case).startswith("Case(EfficientChannelAttention(channels=4")
    assert repr(case).endswith("1x4x2x3, bfloat16, seed 9)")
    with pytest.raises(dataclasses.FrozenInstanceError):
        case.seed = 1


def test_the_oracle_offers_what_other_projects_need():
    assert oracle.golden is golden
    assert set(oracle.FORMATS) == {"float32", "tf32", "bfloat16", "float16", "float8_e4m3", "float8_e5m2"}


@dataclasses.dataclass(frozen=True)
class Divided(npattn.EfficientChannelAttention):
    """A system whose result is NaN in the first channels."""

    undefined: int = 1

    def forward(self, params, x):
        run = super().forward(params, x)
        factor = np.where(np.arange(self.channels) < self.undefined, np.nan, 1.0)[:, None, None].astype(x.dtype)
        return dataclasses.replace(run, output=run.output * factor, backward=lambda dy: run.backward(dy * 1))


def test_an_exact_result_that_is_nan_here_and_there_is_warned_of_and_not_judged():
    with pytest.warns(UserWarning, match=r"output is NaN in 16 of 64 elements, the first at \[0, 0, 0, 0\]"):
        case = golden(Divided(4, undefined=1), height=4, width=4)
    assert np.isinf(case.budget["output"][:, 0]).all()
    assert np.isfinite(case.budget["output"][:, 1:]).all()
    assert "not of 16 because the exact result is NaN" in " ".join(str(case.compare(case.expected)).split())


def test_inputs_that_become_infinite_in_the_format_are_named_where_results_are_nan():
    x = np.random.RandomState(0).standard_normal((2, 8, 3, 4))
    x[0, 0, 0, :2] = 1e6, -1e6
    overflow = r"inputs/x became infinite in 2 of 192 values when rounded to float16, whose largest number is 65504"
    module = npattn.SimAM(channels=8)
    with pytest.warns(UserWarning, match=rf"is NaN in .*, as {overflow}; there no kernel is judged"):
        case = golden(module, inputs=x, dtype="float16", certify=False)
    assert re.search(rf"the exact result is NaN, as {overflow}", " ".join(str(case.compare(case.expected)).split()))
    x[:, :, 0, :2] = 1e6
    with pytest.raises(
        ValueError, match=r"infinite in 32 of 192 .*; expected numbers.*: give smaller values, or another"
    ):
        golden(module, inputs=x, dtype="float16", certify=False)
    golden(module, inputs=x, dtype="bfloat16", certify=False)


def test_a_case_with_fewer_or_more_keys_than_queries_tells_both():
    module = npattn.ScaledDotProductAttention(heads=4, key_heads=2, head_dim=8)
    for width, shape in ((7, "2x4x5x8 with 7 keys"), (5, "2x4x5x8")):
        case = golden(module, batch=2, height=5, width=width, certify=False)
        assert f"), {shape}, float16" in repr(case)
        assert f"{shape}, float16" in " ".join(str(case.compare(case.expected)).split())


@for_each(
    ("system", "options", "error", "words"),
    [
        ("sdpa", {"heads": 4}, TypeError, "is the key 'sdpa'; expected an instance: golden(npattn.ScaledDotProduct"),
        ("sdpa", {"heads": 4}, TypeError, "Attention(heads=4))"),
        ("eca", {}, TypeError, "golden(npattn.EfficientChannelAttention(...))"),
        ("ops.softmax", {}, TypeError, "golden(cases('ops.softmax')[0].module)"),
        ("sdpaa", {"heads": 4}, ValueError, "module='sdpaa' is no key of a system; did you mean 'sdpa'? expected an"),
        (
            "masked_attention",
            {},
            ValueError,
            "module='masked_attention' is no system, but a step of some; expected one of these: sdpa, mhsa",
        ),
        ("zzzzz", {}, ValueError, "module='zzzzz' is no key of a system; expected an instance"),
        (
            npattn.SimAM(4),
            {"channels": 8},
            TypeError,
            "channels is a hyperparameter of the module; expected golden(SimAM(",
        ),
        (npattn.SimAM(4), {"hight": 8}, TypeError, "unknown option 'hight'; did you mean 'height'? (expected batch, "),
        (npattn.SimAM(4), {"key": 8}, TypeError, "unknown option 'key'"),
    ],
)
def test_what_is_no_system_or_no_option_is_told_what_to_write(system, options, error, words):
    with pytest.raises(error, match=re.escape(words)):
        golden(system, **options)


def test_an_exact_result_that_is_mostly_nan_is_refused():
    with pytest.raises(ValueError, match=r"output is NaN in 48 of 64 elements.*no kernel can be judged"):
        golden(Divided(4, undefined=3), height=4, width=4)


def test_where_near_ties_are_the_systems_own_few_draws_are_tried():
    """Of one position a softmax gives 1, and what batch norm in training has left is rounding, throughout."""
    module, seen = npattn.ExternalAttention(4, memory=3, training=True), []
    golden(module, batch=3, height=1, width=1, dtype="bfloat16", certify=False, progress=lambda *a: seen.append(a))
    assert 50 < seen[-1][0] < 100


def test_inputs_that_near_ties_sway_go_forward_alone_and_get_no_certificate(monkeypatch):
    backward, certified = [], []

    def run(*arguments, **options):
        backward.append(options["backward"])
        return run_on(*arguments, **options)

    def certify(*arguments):
        certified.append(len(backward))
        return run_in_longdouble(*arguments)

    run_in_longdouble = measurement.run_in_longdouble
    monkeypatch.setattr(runs, "run_on", run)
    monkeypatch.setattr(measurement, "run_in_longdouble", certify)
    golden(npattn.ExternalAttention(4, memory=3, training=True), batch=3, height=1, width=1, dtype="bfloat16")
    forward = backward.index(True)
    assert forward > measuring.NUM_RUNS
    assert all(backward[forward:])
    assert certified == [len(backward)]


def test_inputs_that_near_ties_refused_before_make_no_difference_to_a_case():
    module, options = npattn.SqueezeExcitation(64, 1), {"anything": False, "steps": {}, "known": None, "overflow": ""}
    case = golden(module, height=4, width=5, dtype="bfloat16")
    found = [
        measurement.measure(
            module, given_to(case), case.format, 0, certify=False, passes=Passes(), wary=wary, **options
        ).budgets
        for wary in (False, True)
    ]
    for name, budget in case.budget.items():
        for budgets in found:
            np.testing.assert_array_equal(budgets[name].scale, budget)


def test_inputs_are_drawn_anew_where_most_of_a_result_overflows_on_its_way():
    module = npattn.MultiScaleConcat(in_channels=10, out_channels=8, rates=(2, 5), training=True)
    case = golden(
        module, batch=2, height=10, width=10, dtype="float16", seed=73, certify=False
    )  # a variance of two near numbers
    assert all(np.isfinite(budget).mean() > 0.5 for budget in case.budget.values())


def test_where_most_of_a_result_overflows_on_its_way_a_kernel_that_computes_in_float32_is_judged():
    """SimAM's gradient of one position goes through 1 / (4 λ)², which is 100 times beyond float16."""
    module = npattn.SimAM(channels=16)
    case = golden(module, batch=3, height=1, width=1, dtype="float16")
    x, dy = (a.astype(np.float32) for a in (case.inputs["x"], case.upstream["output"]))
    run = module({}, x)
    dx = run.backward(dy)[0].astype(np.float16)
    assert case.compare({"output": run.output.astype(np.float16), "x.grad": dx}).passed
    for wrong in (1.01 * dx, np.full_like(dx, np.nan)):
        assert not case.compare({"x.grad": wrong.astype(np.float16)}).passed


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_system_without_a_meaning_for_an_empty_batch_is_told_to_refuse_it():
    class Careless(PRIMITIVE_SYSTEMS["ops.batch_norm"]):
        def check_inputs(self, inputs):
            npattn.Module.check_inputs(self, inputs)

    with pytest.raises(ValueError, match=r"the batch is empty: .* refuses it in check_inputs"):
        golden(Careless(), batch=0, height=3, width=3)


def test_whole_numbers_that_float32_does_not_hold_are_refused():
    class Hashed(Table):
        def forward(self, params, ids):
            return super().forward(params, np.mod(ids.real, 7))

    module = Hashed()
    held = golden(module, inputs={"ids": np.array([[0, 3, 2**24 + 2]])})
    assert held.inputs["ids"].tolist() == [[0, 3, 2**24 + 2]]
    with pytest.raises(ValueError, match=r"inputs\['ids'\] holds 16777217, .*expected whole numbers up to 2\*\*24"):
        golden(module, inputs={"ids": np.array([[0, 3, 2**24 + 1]])})


@pytest.mark.parametrize("method", ["golden", "steps", "diagnose"])
def test_an_interrupt_at_any_moment_leaves_no_setting_of_what_it_met(method):
    module = npattn.EfficientChannelAttention(channels=4)

    def make(**options):
        return golden(module, height=3, width=3, dtype="float16", **options)

    case, settings, moments = make(certify=False), np.geterr(), 0
    wrong = {"output": -case.expected["output"]}
    call, step = {
        "golden": (make, 1),
        "steps": (lambda: measure_steps(case), 1),
        "diagnose": (lambda: case.diagnose(wrong), 31),
    }[method]

    def meets(frame, event):
        return event == "call" and frame.f_code is Change.__exit__.__code__

    for _ in interruptions(call, meets, step):
        moments += 1
        assert CONTEXT.get() is ORDINARY
        assert np.geterr() == settings
    assert moments
