import dataclasses
import itertools
import pickle

import numpy as np
import pytest

import npattn
from npattn import ops
from npattn.oracle import golden
from npattn.oracle import mistakes as faults
from tests.benchmarks import judge, kernels
from tests.benchmarks.kernels import Sums
from tests.naming import for_each
from tests.oracle.made_up import made_up
from tests.strategies import small_example


def moves(fault, places, module, *values):
    """Tell whether a fault changes some result, in one of its places."""
    right = kernels.run_reference(module, *values)
    for site in places:
        with np.errstate(all="ignore"):
            wrong = faults.faulty(kernels.run_reference, fault, site)(module, *values)
        assert {name: a.shape for name, a in wrong.items()} == {name: a.shape for name, a in right.items()}
        if not all(np.abs(judge.difference(wrong[name], right[name])).max() <= 1e-9 for name in right):
            return True
    return False


def test_a_quick_run_passes_correct_kernels_and_catches_faults(capsys):
    judge.main(["eca", "--quick", "--jobs", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["TUNED", "ON", *judge.FORMATS, "all"]
    rows = [line for line in lines if "this judge" in line]
    assert [row.split()[2:] for row in rows] == 4 * [["0", "0", "0", "0"]]
    tries = [int(line.split()[-1]) for line in lines if line.startswith("visible faults missed, of")]
    assert min(tries) > 5
    assert sum(tries) > 200


@for_each("key", judge.SYSTEMS)
def test_at_least_six_faults_can_be_planted_in_every_system_forward_and_backward(key):
    module = judge.SYSTEMS[key].example()
    values = judge.some_values(module)
    places = faults.sites(kernels.run_reference, faults.FAULTS, module, *values)
    for ways in ({"forward", "both"}, {"backward", "both"}):
        moving = (f for f, where in places.items() if f.way in ways and moves(f, where[:1], module, *values))
        six = list(itertools.islice(moving, 6))
        assert len(six) == 6, six


def planted(waiting, module, values):
    """List those of the faults that change something."""
    found = faults.sites(kernels.run_reference, waiting, module, *values)
    return [f for f in waiting if f in found and moves(f, found[f], module, *values)]


def test_every_fault_can_be_planted_somewhere_and_changes_something():
    waiting = list(faults.FAULTS)
    for module in [module for key in judge.SYSTEMS for module in judge.modules_of(key)]:
        done = planted(waiting, module, judge.some_values(module))
        waiting = [fault for fault in waiting if fault not in done]
    # Some matter where maxima are equal, or below 0, on a square map, or where exponentials overflow.
    gate = npattn.CBAMChannelGate(3, 1, pools=("max", "lse"))
    draws = np.random.RandomState(0).standard_normal((2, 3, 4, 4))
    for module, x in (
        (gate, np.ones_like(draws)),
        (npattn.CBAMSpatialGate(3), np.ones_like(draws)),
        (npattn.CBAMSpatialGate(3), -1 - draws**2),
        (npattn.CoordinateAttention(3), draws),
        (gate, 100 * draws),
        (npattn.PositionAttention(3), 100 * draws),
    ):
        done = planted(waiting, module, (module.init(generic=True), {"x": x}, {"output": draws}))
        waiting = [fault for fault in waiting if fault not in done]
    assert not waiting


def test_faults_of_a_system_are_listed(capsys):
    judge.main(["--faults", "eca"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines if not line.startswith(" ")] == [
        "eca, forward",
        "eca, both",
        "eca, backward",
    ]
    assert "conv1d: flipped kernel" in "\n".join(lines)
    assert max(map(len, lines)) <= 80


def test_faults_and_kernels_are_partly_held_out():
    assert set(kernels.KERNELS) | set(kernels.COMPILED) > kernels.HELD_OUT > set(kernels.COMPILED)
    assert set(faults.FAULTS) > faults.HELD_OUT
    assert len({(str(fault), fault.way) for fault in faults.FAULTS}) == len(faults.FAULTS)


@for_each("key", judge.SYSTEMS)
def test_held_out_cases_are_others_than_those_tuned_on(key):
    held_out = judge.held_out_cases(key)
    generic = [module for module, _, values in held_out if values == "generic"]
    assert {values for _, _, values in held_out} == {"generic", "large", "ties"}
    assert {module.key for module in generic} == {key}
    assert not set(generic) & set(judge.modules_of(key))
    assert not set(judge.HELD_OUT_SHAPES) & set(judge.SHAPES)


def test_trials_of_a_held_out_case_are_held_out():
    module = npattn.EfficientChannelAttention(channels=4)
    trials = judge.measure(module, (2, 2, 3), "float32", [0], values="ties", held=True)
    assert all(trial.held and "ties" in trial.case for trial in trials)
    trials = judge.measure(module, (2, 2, 3), "float32", [0])
    assert {trial.name for trial in trials if trial.held and trial.kind == "kernel"} <= kernels.HELD_OUT
    assert {trial.held for trial in trials if trial.kind == "fault"} == {True, False}


def test_a_compiled_kernel_is_run_where_it_is_named():
    pytest.importorskip("torch")
    name = "PyTorch, decomposed"
    case = golden(npattn.EfficientChannelAttention(channels=4), batch=1, height=3, width=4, dtype="float32")
    assert name not in judge.run_kernels(case)
    assert case.compare(judge.run_kernels(case, [name])[name]).passed


def test_a_fault_stands_in_one_call_and_is_gone_afterwards():
    module = npattn.PositionAttention.example()
    values = judge.some_values(module)
    lost = next(fault for fault in faults.FAULTS if str(fault) == "conv2d: lost bias")
    places = faults.sites(kernels.run_reference, [lost], module, *values)
    assert places == {lost: [0, 1, 2]}
    before = {name: getattr(ops, name) for name in ops.__all__}
    wrong = faults.faulty(kernels.run_reference, lost, 2)(module, *values)
    assert {name: getattr(ops, name) for name in ops.__all__} == before
    params, inputs, upstream = values
    without = params | {"value_conv.bias": 0 * params["value_conv.bias"]}
    expected = kernels.run_reference(module, without, inputs, upstream)
    np.testing.assert_allclose(wrong["output"], expected["output"], rtol=1e-12)


@pytest.mark.parametrize("key", judge.SYSTEMS)
def test_all_correct_kernels_agree_in_float32(key):
    case = made_up(small_example(judge.SYSTEMS[key]), "float32")
    found = judge.run_kernels(case)
    assert len(found) >= 5
    largest = max(np.abs(expected).max() for expected in case.expected.values())
    for name, results in found.items():
        assert set(results) == set(case.expected) - set(case.maps)
        for result, value in results.items():
            scale = max(np.abs(case.expected[result]).max(), 0.1 * largest)
            np.testing.assert_allclose(value, case.expected[result], atol=1e-3 * scale, err_msg=f"{name}: {result}")


@pytest.mark.parametrize("sums", [Sums(1, kernels.backwards), Sums(16, np.arange), Sums(3, kernels.shuffled)])
def test_sums_in_another_order_are_the_same_sums(sums):
    random = np.random.RandomState(0)
    a, b = random.standard_normal((2, 3, 4, 35)), random.standard_normal((2, 3, 35, 5))
    s, t = sums.array(a), sums.array(b)
    np.testing.assert_allclose(s @ t, a @ b, rtol=1e-12, atol=1e-13)
    row, column = (0, 0, 0), (0, 0, slice(None), 0)
    for left, right in ((row, (0, 0)), ((0, 0), column), (row, column)):
        product = s[left] @ t[right]
        assert np.shape(product) == np.shape(a[left] @ b[right])
        np.testing.assert_allclose(product, a[left] @ b[right], rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(s.mean(axis=(0, 3), keepdims=True), a.mean(axis=(0, 3), keepdims=True), atol=1e-14)
    np.testing.assert_allclose(s.sum(), a.sum(), rtol=1e-12)
    np.testing.assert_allclose(np.einsum("abcd,abcd->ba", s, a), np.einsum("abcd,abcd->ba", a, a), rtol=1e-12)
    assert isinstance(s.sum(axis=1) * 2, type(s))


def test_sums_are_taken_one_by_one_in_their_order():
    terms = np.array([1e8, *[1] * 1000, -1e8], np.float32)
    assert Sums(1, np.arange).array(terms).sum() == 0  # 1e8 + 1 is 1e8
    assert Sums(1, lambda n: np.roll(np.arange(n), 1)).array(terms).sum() == 1000
    assert Sums(500, np.arange).array(terms).sum() > 400  # the ones of a chunk come together first


def trial(kind, visible, *, format="float16", held=False, **refused):
    everything = dict.fromkeys(judge.RULES, False) | {name.replace("_", " "): value for name, value in refused.items()}
    return judge.Trial(kind, "a", "eca", "case", format, held, everything, visible, "output", 0.5, 0.25)


def test_the_table_counts_what_each_rule_refuses_and_misses():
    trials = [trial("kernel", np.nan, golden_case=True), trial("kernel", np.nan, format="float32")]
    trials += [trial("fault", 9.0, golden_case=True), trial("fault", 9.0), trial("fault", 1.0, golden_case=True)]
    trials += [trial("kernel", np.nan, held=True, plain=True)]
    lines = judge.report(trials, most=5)
    cells = [line.replace(" %", "%").split() for line in lines]
    assert [row[-4:] for row in cells if row[:2] == ["this", "judge"]] == [
        ["-", "100%", "0", "50%"],
        ["-", "50%", "-", "50%"],
        ["-", "0", "-", "0"],
        ["-", "-", "-", "-"],
    ]
    text = "\n".join(lines)
    assert "faults too small for the format: 1, of which caught all the same: 1" in text
    assert "visible faults missed: 1\n" in text
    assert "correct kernels refused: 1\n" in text


def test_a_rule_has_nothing_to_say_of_the_plain_kernel_itself():
    case = golden(npattn.EfficientChannelAttention.example(), batch=1, height=3, width=4, dtype="bfloat16")
    plain = kernels.nearest(case)
    assert "plain" not in judge.try_results(case, "kernel", "plain", plain, None).refused
    twice = {name: case.expected[name] + 1.9 * (value - case.expected[name]) for name, value in plain.items()}
    thrice = {name: case.expected[name] + 2.1 * (value - case.expected[name]) for name, value in plain.items()}
    assert not judge.try_results(case, "kernel", "other", twice, plain).refused["plain"]
    assert judge.try_results(case, "kernel", "other", thrice, plain).refused["plain"]


@pytest.mark.parametrize("name", judge.TOLERANCES)
def test_fixed_tolerances_are_those_of_pytorch(name):
    torch = pytest.importorskip("torch")
    relative, absolute = judge.TOLERANCES[name]
    for value, tolerance in ((0, absolute), (1024, 1024 * relative)):
        right, near, far = (
            torch.tensor(value + factor * tolerance, dtype=getattr(torch, name)) for factor in (0, 0.9, 1.5)
        )
        torch.testing.assert_close(near, right)
        with pytest.raises(AssertionError):
            torch.testing.assert_close(far, right)


def test_tolerances_are_relative_and_absolute():
    case = golden(npattn.EfficientChannelAttention.example(), batch=1, height=3, width=4, dtype="float16")
    expected = case.expected["output"]
    moved = {"output": expected + 0.5 * (1e-3 + 1e-2 * np.abs(expected))}
    assert not judge.beyond(case, moved, 1e-2, 1e-3)
    assert judge.beyond(case, moved, 4e-3, 1e-3)
    assert judge.beyond(case, moved, 1e-2, 0)


def test_results_that_are_not_finite_are_refused_by_every_rule():
    case = golden(npattn.EfficientChannelAttention.example(), batch=1, height=3, width=4, dtype="float16")
    plain = kernels.nearest(case)
    spoilt = plain | {"output": np.where(plain["output"] == plain["output"].max(), np.nan, plain["output"])}
    found = judge.try_results(case, "fault", "nan", spoilt, plain)
    assert all(found.refused.values())
    noise = judge.largest_errors(case)
    assert judge.visibility(case, spoilt, noise) == np.inf


def test_visibility_is_in_units_of_the_errors_of_correct_kernels():
    case = golden(npattn.EfficientChannelAttention.example(), batch=1, height=3, width=4, dtype="float16")
    noise = judge.largest_errors(case)
    rms, worst = noise["conv.weight.grad"]
    assert 0 < rms <= worst
    assert judge.visibility(case, case.expected, noise) == 0
    moved = case.expected | {"conv.weight.grad": case.expected["conv.weight.grad"] + 10 * rms}
    assert judge.visibility(case, moved, noise) == pytest.approx(10)
    assert judge.visibility(dataclasses.replace(case), kernels.nearest(case), noise) <= 1


def test_an_unknown_system_is_refused(capsys):
    with pytest.raises(SystemExit):
        judge.main(["eva"])
    assert "unknown system 'eva'" in capsys.readouterr().err


@pytest.mark.parametrize("seed", [76, 77, 100])
def test_no_order_of_summation_is_refused_where_equal_weights_err_by_the_same(seed):
    module = npattn.ChannelAttention(channels=32)
    case = npattn.oracle.golden(module, batch=2, height=7, width=5, dtype="float32", seed=seed, values="ties")
    case.assert_matches(kernels.KERNELS["sums backwards"](case))


def test_kernels_of_a_gpu_are_judged_in_each_format_and_counted_by_name(monkeypatch):
    def doubled(case):
        return {name: 2 * value for name, value in case.expected.items()}

    def skipped(case):
        raise kernels.SkippedError("no GPU")

    tried = {"right": lambda case: case.expected, "doubled": doubled, "skipped": skipped}
    monkeypatch.setattr(kernels, "CUDA", tried)
    example = judge.SYSTEMS["eca"].example()
    trials = [t for format in ("bfloat16", "tf32") for t in judge.measure_cuda(example, (2, 3, 3), format, range(2))]
    lines = judge.report_cuda(trials, most=1)
    assert [line.split()[:4] for line in lines[1:5]] == [
        ["bfloat16", "right", "0", "2"],
        ["bfloat16", "doubled", "2", "2"],
        ["tf32", "right", "0", "2"],
        ["tf32", "doubled", "2", "2"],
    ]
    assert lines[5] == "correct kernels refused: 4"
    assert max(map(len, lines[:6])) < 80


def test_an_error_passes_between_processes_whatever_it_holds():
    def group():
        error = ValueError("of a compiler")
        error.held = lambda: None
        raise error

    with pytest.raises(RuntimeError, match="of a compiler") as caught:
        judge.run_group(group)
    pickle.dumps(caught.value)
