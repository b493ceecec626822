"""Golden files of systems that npattn does not bring."""

import dataclasses
import importlib
import json
import subprocess
import sys
from dataclasses import dataclass, field

import numpy as np
import pytest

import npattn
from npattn import Module, Pass
from npattn.oracle import ArchiveError, golden, load
from npattn.oracle.golden_files import read_results
from npattn.oracle.golden_files.described import Described
from npattn.oracle.golden_files.header import HEADER
from npattn.oracle.recipes import Recipe
from tests.oracle.golden_files.packing import assert_refused, put, resealed, same, unpack
from tests.oracle.made_up import made_up
from tests.own_systems import OWN_SYSTEMS, CausalHead, NormGate, Powers, RMSNorm


def saved(module, path):
    case = made_up(module)
    case.save(path)
    return case


@pytest.mark.parametrize("system", OWN_SYSTEMS, ids=lambda system: system.__name__)
def test_anyones_system_is_read_back_by_its_class_and_by_nobodys(system, tmp_path):
    case = saved(system.example(), tmp_path / "case.npz")
    known = load(tmp_path / "case.npz", systems=OWN_SYSTEMS)
    assert same(known, case)
    described = load(tmp_path / "case.npz")
    assert same(dataclasses.replace(described, module=case.module), case)
    assert repr(described.module) == repr(case.module)
    reports = [str(one.compare(case.expected)).replace(repr(one), "") for one in (described, case)]
    assert reports[0] == reports[1]
    described.save(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "case.npz").read_bytes()


def test_a_described_system_says_what_to_do_when_it_is_called(tmp_path):
    case = saved(RMSNorm(3), tmp_path / "case.npz")
    module = load(tmp_path / "case.npz").module
    assert isinstance(module, Described)
    for call in (lambda: module(case.params, case.inputs["x"]), lambda: npattn.oracle.golden(module)):
        with pytest.raises(
            TypeError, match=r"does not hold its code; to call it, load the file with systems=\[RMSNorm\]"
        ):
            call()


def test_systems_within_systems_are_named_too(tmp_path):
    class Own(npattn.EfficientChannelAttention):
        pass

    case = saved(npattn.Residual(Own(3)), tmp_path / "case.npz")
    header = json.loads(unpack((tmp_path / "case.npz").read_bytes())[HEADER])
    assert header["system"]["name"] == "Residual"
    assert header["system"]["hyperparameters"]["inner"]["name"] == "Own"
    described = load(tmp_path / "case.npz")
    assert str(described.module) == "Residual(inner=Own(channels=3, kernel_size=None, gamma=2, b=1))"
    assert load(tmp_path / "case.npz", systems=[npattn.Residual, Own]).module == case.module


def test_a_system_of_ones_own_with_a_key_of_the_catalogue_is_not_taken_for_it(tmp_path):
    class Impostor(npattn.EfficientChannelAttention):
        pass

    saved(Impostor(3), tmp_path / "case.npz")
    assert type(load(tmp_path / "case.npz").module) is Described


@dataclass(frozen=True)
class Strips(Module):
    """Four axes, of which none is a map's."""

    channels: int = 4

    def input_shapes(self, batch, height, width):
        return {"x": (batch, height, width, self.channels)}

    def forward(self, params, x):
        return Pass(2 * x, lambda dy: (2 * dy, {}))


@dataclass(frozen=True)
class HeadsLast(Strips):
    """Queries and keys with positions before heads."""

    def input_shapes(self, batch, height, width):
        return {"query": (batch, height, 2, self.channels), "key": (batch, width, 3, self.channels)}

    def forward(self, params, query, key):
        return Pass(2 * query, lambda dy: ((2 * dy, 0 * key), {}))


@dataclass(frozen=True)
class Heads(HeadsLast):
    """Queries and keys as in scaled dot-product attention."""

    def input_shapes(self, batch, height, width):
        return {"query": (batch, 2, height, self.channels), "key": (batch, 2, width, self.channels)}


AXES_OF_OWN = [
    (NormGate, "maps", "channel 1"),
    (Strips, "other", "index 1 of axis 1"),
    (HeadsLast, "other", "index 1 of axis 1"),
    (Heads, "heads", "head 1"),
]


def without_axes(data):
    """A file as it was before it said what axes are."""

    def older(header, _):
        header["version"] = 4 if "steps" in header else 3
        del header["axes"]

    return resealed(data, older)


@pytest.mark.parametrize(("system", "axes", "words"), AXES_OF_OWN, ids=lambda one: getattr(one, "__name__", ""))
def test_a_report_speaks_of_the_axes_that_the_class_has_with_it_and_without_it(system, axes, words, tmp_path):
    case = saved(system(), tmp_path / "case.npz")
    assert json.loads(unpack((tmp_path / "case.npz").read_bytes())[HEADER])["axes"] == axes
    case.budget["output"][:] = 1e-3
    case.save(tmp_path / "case.npz", force=True)
    wrong = np.array(case.expected["output"])
    wrong[:, 1] = 0
    for judged in (case, load(tmp_path / "case.npz"), load(tmp_path / "case.npz", systems=[system])):
        report = judged.compare({"output": wrong})
        assert report.readings["output"] == f"wrong in {words} alone, where it is 0; all else is right"
        assert report.title.startswith(f"Case({system.__name__}(")
    (tmp_path / "old.npz").write_bytes(without_axes((tmp_path / "case.npz").read_bytes()))
    old, known = load(tmp_path / "old.npz"), load(tmp_path / "old.npz", systems=[system])
    assert "wrong in index 1 of axis 1 alone" in old.compare({"output": wrong}).readings["output"]
    assert same(known, case)
    assert words in known.compare({"output": wrong}).readings["output"]
    old.save(tmp_path / "again.npz")
    headers = (unpack((tmp_path / name).read_bytes())[HEADER] for name in ("old.npz", "again.npz"))
    assert json.loads(next(headers)) == json.loads(next(headers))


def test_what_a_file_says_of_axes_is_one_of_a_few_words_and_what_the_class_says(tmp_path):
    saved(Strips(), tmp_path / "good.npz")
    good = (tmp_path / "good.npz").read_bytes()
    words = "axes is 'rows'; expected one of maps, heads, other"
    assert_refused(tmp_path / "bad.npz", resealed(good, put("axes", value="rows")), words)
    assert_refused(tmp_path / "bad.npz", resealed(good, put("axes", value=3)), "axes is 3; expected str")
    other = resealed(good, put("axes", value="maps"))
    assert_refused(
        tmp_path / "bad.npz", other, "axes is 'maps'; expected 'other'", read=lambda path: load(path, systems=[Strips])
    )


def test_a_named_systems_file_may_hold_steps_and_says_what_axes_are(tmp_path):
    case = npattn.oracle.golden(RMSNorm(3), height=2, width=3, steps=True)
    case.save(tmp_path / "case.npz", steps=True)
    header = json.loads(unpack((tmp_path / "case.npz").read_bytes())[HEADER])
    assert (header["version"], header["axes"]) == (5, "other")
    for data in ((tmp_path / "case.npz").read_bytes(), without_axes((tmp_path / "case.npz").read_bytes())):
        (tmp_path / "read.npz").write_bytes(data)
        for systems in ([], [RMSNorm]):
            assert load(tmp_path / "read.npz", systems=systems).steps().keys() == case.steps().keys()


def test_no_code_is_imported(tmp_path):
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')")
    saved(RMSNorm(3), tmp_path / "good.npz")
    for number, name in enumerate(("trap", "Trap")):
        change = put("system", "name", value=name)
        (tmp_path / f"{number}.npz").write_bytes(resealed((tmp_path / "good.npz").read_bytes(), change))
    code = "import npattn.oracle; print(*(npattn.oracle.load(f'{number}.npz').module for number in range(2)))"
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout == "trap(channels=3, eps=1e-06) Trap(channels=3, eps=1e-06)\n"


def test_verify_judges_a_system_that_it_has_never_seen(tmp_path, capsys):
    main = importlib.import_module("npattn.cli").main
    case = saved(CausalHead(3), tmp_path / "case.npz")
    np.savez(tmp_path / "right.npz", **case.expected)
    np.savez(tmp_path / "wrong.npz", **{"weights": case.expected["weights"] + 1e3})
    assert main(["verify", str(tmp_path / "case.npz"), str(tmp_path / "right.npz")]) == 0
    assert main(["verify", str(tmp_path / "case.npz"), str(tmp_path / "wrong.npz")]) == 1
    assert "CausalHead(channels=3)" in capsys.readouterr().out
    assert read_results(tmp_path / "right.npz", load(tmp_path / "case.npz")).keys() == case.expected.keys()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put("system", "name", value="os.system"), ["the system's name is 'os.system'; expected that of a class"]),
        (put("system", "name", value=""), ["expected that of a class"]),
        (put("system", "name", value="X\n"), ["expected that of a class"]),
        (put("system", "key", value="eca"), ["expected a key or a name, and hyperparameters"]),
        (put("inputs", value=["y"]), ["'inputs/x.npy', of which header.json says nothing"]),
        (put("results", 0, "name", value="y"), ["says nothing"]),
    ],
)
def test_headers_that_name_a_system_wrongly_are_refused(tmp_path, change, words):
    saved(RMSNorm(3), tmp_path / "good.npz")
    assert_refused(tmp_path / "bad.npz", resealed((tmp_path / "good.npz").read_bytes(), change), *words)


def members_swapped(first, second):
    """Give two arrays each other's place, as far as shapes allow for it."""

    def change(header, members):
        for group in ("expected", "budget"):
            one, other = (f"{group}/{name}.npy" for name in (first, second))
            members[one], members[other] = members[other], members[one]
            described = header["members"]
            described[one], described[other] = described[other], described[one]

    return change


@pytest.mark.parametrize("systems", [[], [NormGate]])
@pytest.mark.parametrize("pair", [("x.grad", "bn.weight.grad"), ("output", "bn.running_var")])
def test_results_of_shapes_that_contradict_what_they_are_of_are_refused(tmp_path, systems, pair):
    saved(NormGate(3), tmp_path / "good.npz")
    bad = resealed((tmp_path / "good.npz").read_bytes(), members_swapped(*pair))
    assert_refused(tmp_path / "bad.npz", bad, "has shape", read=lambda path: load(path, systems=systems))


def test_a_class_that_is_another_than_the_files_is_told(tmp_path):
    saved(RMSNorm(3), tmp_path / "case.npz")

    @dataclass(frozen=True)
    class Other(RMSNorm):
        scale: bool = True

    Other.__name__ = "RMSNorm"
    with pytest.raises(
        ArchiveError, match="hyperparameters of 'RMSNorm' are 'channels', 'eps'; expected channels, eps"
    ):
        load(tmp_path / "case.npz", systems=[Other])
    for systems in ("RMSNorm", RMSNorm, [RMSNorm(3)], [int]):
        with pytest.raises(TypeError, match="expected a list of subclasses of Module"):
            load(tmp_path / "case.npz", systems=systems)


def test_a_hyperparameter_that_json_lacks_is_named(tmp_path):
    @dataclass(frozen=True)
    class Typed(RMSNorm):
        activation: object = max

    with pytest.raises(TypeError, match=r"activation can't be saved: .*; expected a finite number, a string"):
        saved(Typed(3), tmp_path / "case.npz")
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_element_of_a_vector_or_of_a_number_is_told_of_with_and_without_the_systems_class(tmp_path):
    case = made_up(Powers())
    for name, index in (("output.0", (7,)), ("v.grad", (7,)), ("output.1", ()), ("scale.grad", ())):
        case.budget[name][index] = 1
    case.save(tmp_path / "case.npz")
    for judged in (case, load(tmp_path / "case.npz"), load(tmp_path / "case.npz", systems=[Powers])):
        for name, index in (("output.0", (7,)), ("v.grad", (7,)), ("output.1", ()), ("scale.grad", ())):
            wrong = np.array(case.expected[name])
            wrong[index] += 1e3
            report = str(judged.compare({name: wrong}))
            assert "1 of 1 results WRONG" in report
            assert f"expected {np.array(case.expected[name])[index]:.8g}, got {wrong[index]:.8g}, budget 1" in report
            assert " at [7]: " in report or not index


def test_a_field_that_is_no_hyperparameter_to_give_is_left_to_the_class(tmp_path):
    @dataclass(frozen=True)
    class Derived(RMSNorm):
        half: int = field(init=False)

        def __post_init__(self):
            object.__setattr__(self, "half", self.channels // 2)
            super().__post_init__()

    case = saved(Derived(6), tmp_path / "case.npz")
    found = load(tmp_path / "case.npz", systems=[Derived])
    assert found.module.half == 3
    assert same(found, case)
    assert str(load(tmp_path / "case.npz").module) == "Derived(channels=6, eps=1e-06)"


def test_a_system_of_npattns_around_ones_own_is_made_of_the_own_class_alone(tmp_path):
    class Own(npattn.EfficientChannelAttention):
        pass

    case = saved(npattn.Residual(npattn.Residual(Own(3))), tmp_path / "case.npz")
    module = load(tmp_path / "case.npz", systems=[Own]).module
    assert module == case.module
    run = module(case.params, case.inputs["x"])
    np.testing.assert_array_equal(run.output, case.module(case.params, case.inputs["x"]).output)


class Undecorated(Module):
    """A system whose hyperparameters are no fields."""

    def __init__(self, channels, factor):
        object.__setattr__(self, "channels", channels)
        object.__setattr__(self, "factor", factor)

    def forward(self, params, x):
        return Pass(self.factor * x, lambda dy: (self.factor * dy, {}))


def test_a_system_that_is_no_dataclass_has_cases_of_its_own_and_none_is_saved(tmp_path):
    cases = [Recipe(Undecorated(4, factor), "float32", 1, 2, 2).make() for factor in (2, 3)]
    factors = [(case.expected["output"] / case.inputs["x"]).round(6).flat[0] for case in cases]
    assert factors == [2, 3]
    message = r"can't be saved: it holds 'channels', and Undecorated is no dataclass; put @dataclass\(frozen=True\) on"
    with pytest.raises(TypeError, match=message):
        cases[0].save(tmp_path / "case.npz")


@dataclass(frozen=True)
class Pairs(Module):
    """Vectors that are called as attention's inputs are."""

    def input_shapes(self, batch, height, width):
        return {"query": (batch * height,), "key": (batch * height,)}

    def forward(self, params, query, key):
        return Pass(query * key, lambda dy: ((dy * key, dy * query), {}))


def test_a_query_and_a_key_that_are_no_heads_count_no_keys(tmp_path):
    case = saved(Pairs(), tmp_path / "case.npz")
    for read in (case, load(tmp_path / "case.npz"), saved(HeadsLast(), tmp_path / "last.npz")):
        assert " keys" not in repr(read)
    assert "with 5 keys" in repr(saved(Heads(), tmp_path / "heads.npz"))
    assert "with 5 keys" in repr(load(tmp_path / "heads.npz"))


def scaled(forward=2.0, backward=2.0, error=None):
    """A class of one name, however it computes."""

    @dataclass(frozen=True)
    class Scaled(Module):
        channels: int = 4

        def forward(self, params, x):
            if error is not None:
                raise error
            return Pass(forward * x, lambda dy: (backward * dy, {}))

    return Scaled


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (scaled(3.0, 3.0), "the class given in systems has other code: it computes another output; load the file"),
        (scaled(2.0, 3.0), "it computes another x.grad; load"),
        (
            scaled(error=RuntimeError("lost")),
            r"given in systems fails on its inputs \('lost'\); load the file",
        ),
    ],
)
@pytest.mark.parametrize("within", [False, True])
def test_a_class_that_computes_something_else_than_the_file_holds_is_refused(tmp_path, other, words, within):
    def holding(system):
        return npattn.Residual(system(4)) if within else system()

    case = golden(holding(scaled()), height=2, width=2, dtype="bfloat16")
    case.save(tmp_path / "case.npz")
    assert load(tmp_path / "case.npz", systems=[scaled()]).compare(case.expected).passed
    with pytest.raises(ArchiveError, match=words):
        load(tmp_path / "case.npz", systems=[other])
    assert load(tmp_path / "case.npz").compare(case.expected).passed


def test_two_classes_of_one_name_are_refused(tmp_path):
    golden(scaled()(), height=2, width=2).save(tmp_path / "case.npz")
    one = scaled()
    assert load(tmp_path / "case.npz", systems=[one, one])
    with pytest.raises(ValueError, match="holds two classes named 'Scaled'; expected one"):
        load(tmp_path / "case.npz", systems=[one, scaled()])
