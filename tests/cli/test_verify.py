import json
import re

import numpy as np
import pytest

import npattn
from npattn import oracle
from npattn.cli import verify
from npattn.oracle.comparison import Judgement
from tests.cli.running import assert_one_complaint, run_for_no_reader
from tests.oracle.made_up import made_up
from tests.own_systems import RMSNorm


@pytest.mark.parametrize(
    "names", [["output"], ["x.grad", "conv.weight.grad"], ["output", "x.grad", "conv.weight.grad"]]
)
def test_verify_passes_right_results_and_names_those_not_given(command, small, names):
    case, right = small
    np.savez_compressed("results.npz", **{name: right[name].astype(np.float16) for name in names})
    status, out, err = command("verify", "eca-float16.npz", "results.npz")
    assert (status, err) == (0, "")
    report = case.compare({name: right[name].astype(np.float16) for name in names})
    assert out == f"{report}\n"
    missing = [name for name in right if name not in (*names, *case.maps)]
    assert out.endswith(f"not given: {', '.join(missing)}\n") if missing else "not given" not in out


@pytest.mark.parametrize("spoiled", ["output", "x.grad", "conv.weight.grad"])
@pytest.mark.parametrize("fault", [lambda y: y * 1.5, lambda y: y * np.nan, lambda y: y[None], lambda y: y * 1j])
def test_verify_fails_and_names_the_wrong_result(command, small, spoiled, fault):
    _, results = small
    np.savez("results.npz", **results | {spoiled: fault(results[spoiled])})
    status, out, err = command("verify", "eca-float16.npz", "results.npz")
    assert (status, err) == (1, "")
    assert "1 of 4 results WRONG" in out
    assert [line.split()[0] for line in out.splitlines() if line.endswith("WRONG")] == [spoiled]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing.npz", "right.npz"], ["missing.npz: No such file"]),
        (["eca-float16.npz", "missing.npz"], ["missing.npz: No such file"]),
        (["right.npz", "eca-float16.npz"], ["right.npz: holds no header.json; expected a golden file"]),
        (["eca-float16.npz", "eca-float16.npz"], ["holds a header.json", "expected the results of a kernel"]),
        (["eca-float16.npz", "typo.npz"], ["typo.npz: holds 'outptu.npy'", "did you mean 'output.npy'?"]),
        (["eca-float16.npz", "single.npy"], ["a single array (.npy); expected an .npz file", "a folder of .npy files"]),
        (["eca-float16.npz", "bfloat16.npz"], ["dtype '|V2'", "write float32"]),
        (["eca-float16.npz", "pickled.npz"], ["holds pickled objects"]),
        (["eca-float16.npz", "none.npz"], ["holds no results; expected some of output, x.grad, conv.weight.grad"]),
        (["cut.npz", "right.npz"], ["cut.npz: cut off or altered"]),
        (["eca-float16.npz", "cut.npz"], ["cut.npz: cut off or altered"]),
        (["text.npz", "right.npz"], ["text.npz: no .npz archive"]),
        (["eca-float16.npz", "."], [".: "]),
        (["eca-float16.npz", "suite"], ["suite: holds 'eca-case', which is a folder; expected .npy files alone"]),
    ],
)
def test_verify_refuses_other_files_in_one_line(command, small, folder, arguments, words):
    _, right = small
    np.savez("right.npz", **right)
    np.savez("typo.npz", outptu=right["output"])
    np.save("single.npy", right["output"])
    np.savez("bfloat16.npz", output=right["output"].astype(np.float16).view("V2"))
    np.savez("pickled.npz", output=right["output"].astype(object))
    np.savez("none.npz")
    (folder / "cut.npz").write_bytes((folder / "eca-float16.npz").read_bytes()[:-30])
    (folder / "text.npz").write_text("no archive")
    (folder / "suite" / "eca-case").mkdir(parents=True)
    assert_one_complaint(command("verify", *arguments), "npattn verify: ", *words)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["missing.npz", "right.npz"], "missing.npz: No such file"),
        (["eca-float16.npz", "missing.npz"], "missing.npz: No such file"),
        (["eca-float16.npz", "typo.npz"], "typo.npz: holds 'outptu.npy'"),
        ([".", "right.npz"], ".: a folder without manifest.json"),
        (["suite", "missing"], "missing is no folder"),
    ],
)
def test_verify_tells_programs_too_that_input_is_bad(command, small, folder, arguments, reason):
    _, right = small
    np.savez("right.npz", **right)
    np.savez("typo.npz", outptu=right["output"])
    oracle.suite([], "suite")
    plain = command("verify", *arguments)
    status, out, err = command("verify", *arguments, "--json")
    assert (status, err) == (2, plain[2])
    found = json.loads(out)
    assert (found["passed"], found["cases"]) == (False, [])
    assert found["error"].startswith(reason)
    assert err.endswith(f"{found['error']}\n")


def test_verdict_is_kept_though_its_reader_has_seen_enough(small):
    _, results = small
    np.savez("wrong.npz", output=2 * results["output"])
    assert run_for_no_reader("verify", "eca-float16.npz", "wrong.npz", unbuffered="1") == (1, b"")


def test_golden_writes_steps_and_verify_names_the_first_that_is_off(command, folder):
    status, out, _ = command("golden", "eca", "channels=3", "--height=2", "--width=3", "--steps")
    assert status == 0
    assert "steps: (1) p, (2) z, (3) a, (4) y, (4') dx, (4') da, (3') dz, (2') dp," in out
    case = oracle.load("eca-float16.npz")
    steps = {name: step.expected for name, step in case.measured_steps.items()}
    np.savez("right.npz", **case.expected, **steps)
    assert command("verify", "eca-float16.npz", "right.npz", "--all")[0] == 0
    wrong = {name: 2 * steps[name] for name in ("(3') dz", "(2') dp")}
    np.savez("wrong.npz", **case.expected, **steps | wrong)
    status, out, err = command("verify", "eca-float16.npz", "wrong.npz")
    assert (status, err) == (1, "")
    assert "begins at (3') dz: the 6 before it are right\n  dz = back_sigmoid(da)\n" in out
    found = json.loads(command("verify", "eca-float16.npz", "wrong.npz", "--json")[1])["cases"][0]
    assert found["first_wrong"] == "(3') dz"
    assert found["begins"].startswith("begins at (3') dz: ")


def test_verify_measures_the_steps_that_a_file_lacks(command, small):
    case, _ = small
    np.savez("steps.npz", **{"(3) a": 2 * case.expected["channel"]})
    status, out, _ = command("verify", "eca-float16.npz", "steps.npz")
    assert status == 1
    assert "the first step that is off is (3) a; of the 2 before it none is given\n" in out


def test_verify_says_by_results_alone_which_steps_are_suspected(command, small):
    case, _ = small
    np.savez("wrong.npz", **case.expected | {"output": 2 * case.expected["output"]})
    found = json.loads(command("verify", "eca-float16.npz", "wrong.npz", "--json")[1])["cases"][0]
    assert found["first_wrong"] is None
    assert found["begins"].startswith("begins in one of (4), the writing of output: upstream of all that is wrong")
    assert {one["name"]: one["reading"] for one in found["judgements"]}["output"].startswith("2 times expected")


def test_verify_says_that_no_known_mistake_gives_wrong_results(command, small):
    case, _ = small
    np.savez("wrong.npz", output=case.expected["output"] ** 2)
    status, out, _ = command("verify", "eca-float16.npz", "wrong.npz", "--explain")
    assert (status, "\nno known mistake gives these results\n" in out) == (1, True)


def test_verify_judges_a_system_whose_code_it_lacks_and_says_that_no_mistakes_are_tried(command, folder):
    case = made_up(RMSNorm(3))
    case.save("own.npz")
    np.savez("wrong.npz", **{name: 2 * y + 1 for name, y in case.expected.items()})
    status, out, err = command("verify", "own.npz", "wrong.npz")
    assert (status, err) == (1, "")
    explained = command("verify", "own.npz", "wrong.npz", "--explain")
    assert (explained[0], explained[2]) == (1, "")
    assert explained[1].startswith(f"{out}the file holds no code of RMSNorm, so no mistakes are tried\n  in Python: ")
    _, _, way = " ".join(explained[1].split()).partition("in Python: ")
    in_python = {"npattn": npattn, "numpy": np, "RMSNorm": RMSNorm}
    exec(way, in_python)
    assert isinstance(in_python["case"].module, RMSNorm)
    status, out, err = command("verify", "own.npz", "wrong.npz", "--explain", "--json")
    (found,) = json.loads(out)["cases"]
    assert (status, err, found["suspects"]) == (1, "", [])
    assert found["untried"] == "the file holds no code of RMSNorm, so no mistakes are tried"
    assert found["hints"] == [f"in Python: {way}"]
    np.savez("right.npz", **case.expected)
    assert command("verify", "own.npz", "right.npz", "--explain")[0] == 0


def test_verify_explains_what_wrong_results_look_like_where_it_is_asked_to(command, small):
    _, results = small
    np.savez("results.npz", **results | {"conv.weight.grad": 2 * results["conv.weight.grad"]})
    status, out, err = command("verify", "eca-float16.npz", "results.npz", "--explain")
    assert (status, err) == (1, "")
    assert "conv.weight.grad is that of (2') conv1d: gradient: of weight twice" in " ".join(out.split())
    assert "twice" not in command("verify", "eca-float16.npz", "results.npz")[1]
    suspects = json.loads(command("verify", "eca-float16.npz", "results.npz", "--explain", "--json")[1])
    (found,) = suspects["cases"]
    assert any("twice" in one["name"] for one in found["suspects"])
    assert found["alike"] <= len(found["suspects"])
    assert found["untried"] is None


def test_a_search_that_verify_gives_too_little_time_says_so_and_with_which_option_it_is_given_more(command, small):
    case, results = small
    wrong = {name: np.asarray(y) + 3 * case.budget[name] * 1e3 for name, y in results.items()}
    np.savez("results.npz", **wrong)
    status, out, err = command("verify", "eca-float16.npz", "results.npz", "--explain", "--seconds", "0.0001")
    assert (status, err) == (1, "")
    (told,) = re.findall(r"there was time to try \d+ of \d+ mistakes: --seconds \d+ tries more", " ".join(out.split()))
    (found,) = json.loads(
        command("verify", "eca-float16.npz", "results.npz", "--explain", "--seconds", "0.0001", "--json")[1]
    )["cases"]
    assert re.sub(r"\d+", "", found["unfinished"]) == re.sub(r"\d+", "", told)
    assert (found["complete"], found["blurred"]) == (False, [])
    for bad in ("0", "-1", "nan", "1e3", ""):
        status, out, err = command("verify", "eca-float16.npz", "results.npz", "--explain", "--seconds", bad)
        assert (status, out) == (2, "")
        assert f"{bad!r} is no number of seconds; expected one above 0" in err


@pytest.mark.parametrize("passes", [True, False])
def test_json_says_whether_zeros_would_pass_too(passes):
    assert verify.judgement_to_json(Judgement("x.grad", zeros_pass=passes))["zeros_pass"] is passes
