import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from npattn import cli, oracle
from npattn.cli import suite as suite_command
from npattn.cli.suite import show_progress
from npattn.oracle.suites import Progress, read_manifest
from tests.cli.running import COMMAND, assert_one_complaint, posix

FEW = "--suite", "eca", "--dtype", "float16", "--kinds", "ties", "zeros", "empty", "-o", "cases"


def test_golden_makes_a_suite_and_goes_on_with_it(command, folder):
    status, out, err = command("golden", *FEW, "--limit", "1")
    assert (status, out, err) == (0, "cases: 1 made, 0 kept, 0 failed\n", "")
    assert command("golden", *FEW)[1] == "cases: 2 made, 1 kept, 0 failed\n"
    assert command("golden", *FEW)[1] == "cases: 0 made, 3 kept, 0 failed\n"
    assert set(read_manifest(folder / "cases")) == {p.name for p in (folder / "cases").iterdir()} - {"manifest.json"}


def test_a_suites_recipes_have_its_seed_and_its_progress_is_shown(command, folder, monkeypatch):
    seen = []
    monkeypatch.setattr(suite_command, "show_progress", seen.append)
    assert command("golden", *FEW, "--seed", "3")[0] == 0
    assert {entry.recipe["seed"] for entry in read_manifest(folder / "cases").values()} == {3}
    assert [state.done for state in seen] == [1, 2, 3]


def test_primitives_are_systems_of_a_suite(command, folder):
    asked = "--suite", "ops.relu", "--dtype", "float16", "--kinds", "ties", "-o", "cases"
    assert command("golden", *asked)[1] == "cases: 1 made, 0 kept, 0 failed\n"
    assert set(read_manifest(folder / "cases")) == {"ops.relu-float16-3x16x7x9-ties.npz"}


def test_hyperparameters_of_a_suite_stay_in_all_its_cases_and_it_goes_on(command, folder):
    few = "--dtype", "float16", "--limit", "3", "-o", "cases"
    assert command("golden", "--suite", "sdpa", "causal=bottom-right", "sink=False", *few)[1] == (
        "cases: 3 made, 0 kept, 0 failed\n"
    )
    entries = read_manifest(folder / "cases")
    found = [entry.recipe["system"]["hyperparameters"] for entry in entries.values()]
    assert [(one["causal"], one["sink"]) for one in found] == [("bottom-right", False)] * 3
    assert {oracle.load(folder / "cases" / name).module.causal for name in entries} == {"bottom-right"}
    expected = {r.id for r in oracle.cases("sdpa", ["float16"], limit=3, causal="bottom-right", sink=False)}
    assert {entry.id for entry in entries.values()} == expected
    again = command("golden", "--suite", "sdpa", *few, "sink=False", "causal=bottom-right")
    assert again[1] == "cases: 0 made, 3 kept, 0 failed\n"


def test_hyperparameters_of_a_suite_are_those_of_each_system_in_it(command, folder):
    asked = "--suite", "mhsa", "cbam", "--kinds", "options", "--dtype", "float16", "channels=24", "--list"
    names = command("golden", *asked)[1].split()
    assert {name.partition("-")[0] for name in names} == {"mhsa", "cbam"}
    assert all("-channels-24" in name for name in names)
    nested = command("golden", "--suite", "residual", "inner=cbam", "inner.channels=16", "--limit", "2", "--list")[1]
    assert all(re.match(r"residual-\w+-\dx16x\d+x\d+-cbam\b", name) for name in nested.split())


def test_the_files_of_a_suite_are_listed_as_they_will_be_called(command, folder):
    status, out, err = command("golden", *FEW, "--list")
    assert (status, err, list(folder.iterdir())) == (0, "", [])
    assert command("golden", *FEW)[0] == 0
    assert sorted(out.split()) == sorted(read_manifest(folder / "cases"))
    long = {"scale": 0.125, "causal": "bottom-right", "window": (100000, 0), "softcap": 2.5, "bias": True, "mask": True}
    fields = [f"{name}={value}" for name, value in long.items()]
    out = command("golden", "--suite", "sdpa", *fields, "--kinds", "sizes", "--dtype", "float8_e4m3", "--list")[1]
    ids = [recipe.id for recipe in oracle.cases("sdpa", ["float8_e4m3"], kinds=["sizes"], **long)]
    cut = {id: f"{id[:120]}.npz\n  {id}" for id in ids if len(id) > 120}
    assert out == "".join(cut.get(id, f"{id}.npz") + "\n" for id in ids)
    assert 0 < len(cut) < len(ids)


def test_a_suite_on_processes_is_the_same(command, folder):
    assert command("golden", *FEW, "--jobs", "2")[:2] == (0, "cases: 3 made, 0 kept, 0 failed\n")
    assert command("golden", *FEW)[1] == "cases: 0 made, 3 kept, 0 failed\n"


def test_a_suite_holds_steps_and_verify_names_the_first_that_is_off(command, folder):
    assert command("golden", *FEW, "--limit", "1")[0] == 0
    assert command("golden", *FEW, "--steps")[1] == "cases: 3 made, 0 kept, 0 failed\n"
    assert command("golden", *FEW)[1] == "cases: 0 made, 3 kept, 0 failed\n"
    case = oracle.load(folder / "cases" / f"{TIES}.npz")
    steps = {name: step.expected for name, step in case.measured_steps.items()}
    wrong = {name: 2 * steps[name] for name in ("(3') dz", "(2') dp")}
    place = folder / "results" / TIES
    place.mkdir(parents=True)
    for name, y in (case.expected | steps | wrong).items():
        np.save(place / f"{name}.npy", y)
    status, out, err = command("verify", "cases", "results")
    assert (status, err) == (1, "")
    assert "begins at (3') dz: the 6 before it are right\n" in out
    for name in wrong:
        np.save(place / f"{name}.npy", steps[name])
    assert command("verify", "cases", "results")[0] == 0


@pytest.mark.parametrize(("options", "jobs"), [([], []), (["--jobs", "1"], []), (["--jobs", "3"], [3])])
def test_as_many_processes_start_as_are_asked_for(command, folder, monkeypatch, options, jobs):
    started = []

    @contextlib.contextmanager
    def start(count):
        started.append(count)
        yield None

    monkeypatch.setattr(suite_command, "worker_processes", start)
    assert command("golden", *FEW, *options)[0] == 0
    assert started == jobs


def test_a_failed_recipe_sets_the_status_and_is_named(command, folder):
    (folder / "cases").mkdir()
    (folder / "cases/eca-float16-3x32x7x9-ties.npz").write_text("mine")
    status, out, _ = command("golden", *FEW)
    assert status == 1
    assert out.startswith("cases: 2 made, 0 kept, 1 failed\n  eca-float16-3x32x7x9-ties.npz: ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--suite", "ecaa", "-o", "cases"], ["unknown system 'ecaa'; did you mean 'eca'?"]),
        (["--suite", "eca"], ["--suite needs a folder to write to: -o FOLDER"]),
        (["se", "--suite", "eca", "-o", "cases"], ["'se' stands apart from --suite", "leave 'se' out"]),
        (["--suite", "eca", "-o", "cases", "--height", "3"], ["leave --height out"]),
        (["--suite", "eca", "-o", "cases", "--batch", "0"], ["leave --batch out"]),
        (
            ["--suite", "sdpa", "eca", "causal=None", "-o", "cases"],
            ["--suite eca: EfficientChannelAttention: unknown hyperparameter 'causal' (expected channels, kernel_size"],
        ),
        (
            ["--suite", "sdpa", "heads=3", "-o", "cases"],
            ["--suite sdpa: ", "key_heads=2; expected a divisor of heads=3"],
        ),
        (
            ["--suite", "sdpa", "causal=left", "-o", "cases"],
            ["--suite sdpa: ", "causal='left'; did you mean 'top-left'"],
        ),
        (["--suite", "sdpa", "heads=2", "-o", "cases", "heads=4"], ["heads is given twice"]),
        (["--suite", "heads=2", "-o", "cases"], ["--suite heads=2: hyperparameters of which system?"]),
        (["eca", "--list"], ["--list is for many files"]),
        (["--suite", "eca", "-o", "cases", "--certify", "none"], ["leave --certify out"]),
        (
            ["--suite", "eca", "-o", "cases", "--jobs", "0"],
            ["--jobs", "'0' is no number of processes; expected a whole number from 1 to"],
        ),
        (
            ["--suite", "eca", "--limit", "0"],
            ["--limit", "'0' is no number of cases; expected a whole number from 1 to"],
        ),
        (["--suite", "eca", "-o", "cases", "--kinds", "size"], ["invalid choice: 'size'"]),
        (["eca", "--jobs", "2"], ["--jobs is for many files"]),
        (["eca", "--limit", "2"], ["--limit is for many files"]),
        ([], ["which system?", "--suite KEY"]),
        (["--suite", "eca", "-o", "file"], ["file is no folder; expected one, or a name that is free"]),
    ],
)
def test_other_arguments_are_refused_in_one_line(command, folder, arguments, words):
    (folder / "file").write_text("")
    assert_one_complaint(command("golden", *arguments), *words)
    assert [path.name for path in folder.iterdir()] == ["file"]


def test_a_folder_with_another_manifest_is_left_alone(command, folder):
    (folder / "cases").mkdir()
    (folder / "cases/manifest.json").write_text("{}")
    assert_one_complaint(command("golden", *FEW), "cases/manifest.json: its format is not")
    assert (folder / "cases/manifest.json").read_text() == "{}"


def test_dask_makes_a_suite(command, folder, monkeypatch):
    distributed = pytest.importorskip("distributed")
    options = {"processes": False, "protocol": "tcp://", "dashboard_address": ":0"}  # what it sends is serialised
    addresses = []

    def watched(recipes, folder, executor, **options):
        addresses.append(executor._client.scheduler.address)
        return oracle.suite(recipes, folder, executor, **options)

    monkeypatch.setattr(suite_command, "suite", watched)
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, **options) as cluster:
        assert command("golden", *FEW, "--dask", cluster.scheduler_address)[:2] == (
            0,
            "cases: 3 made, 0 kept, 0 failed\n",
        )
        assert addresses == [cluster.scheduler_address]


def test_a_missing_extra_is_told(command, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert_one_complaint(command("golden", *FEW, "--dask", "tcp://127.0.0.1:1"), "pip install 'npattn[dask]'")


def test_the_bar_counts(monkeypatch):
    lines = []
    monkeypatch.setattr(suite_command, "progress", lines.append)
    show_progress(Progress(5, 20, 1, "eca.npz"))
    assert lines == ["[#####...............] 5 of 20, 1 failed  eca.npz"]


def start_suite(folder, *options):
    """Start a suite that takes long, and wait until two of its files are there."""
    command = [*COMMAND, "golden", "--suite", "eca", "se", "pam", "-o", "cases", *options]
    pipe = subprocess.PIPE
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # else ignored where a shell put the tests behind
    try:
        process = subprocess.Popen(command, cwd=folder, stdout=pipe, stderr=pipe, start_new_session=True)
    finally:
        signal.signal(signal.SIGINT, before)
    while process.poll() is None and len(list(folder.glob("cases/[!.]*.npz"))) < 2:
        time.sleep(0.02)
    return process


def wait_for_end(process):
    """Wait until neither a command nor its workers hold its pipes; return what it said on stderr."""
    try:
        return process.communicate(timeout=300)[1]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # those that a failure has left


@posix
@pytest.mark.parametrize(
    ("number", "status", "options"),
    [(signal.SIGINT, 130, ()), (signal.SIGINT, 130, ("--jobs", "2")), (signal.SIGTERM, 143, ("--jobs", "2"))],
)
def test_signals_leave_a_folder_that_is_gone_on_with(folder, number, status, options):
    process = start_suite(folder, *options)
    # A terminal sends Ctrl-C to all processes, kill sends SIGTERM to one.
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    err = wait_for_end(process)
    assert process.returncode == status
    assert b"Traceback" not in err
    assert (b"cases: interrupted; the same command goes on" in err) == (number == signal.SIGINT)
    files = {path.name for path in (folder / "cases").iterdir()}
    listed = read_manifest(folder / "cases")
    assert files - {"manifest.json"} <= listed.keys()
    for name in files - {"manifest.json"}:
        oracle.load(folder / "cases" / name)


@posix
def test_workers_end_with_the_command(folder):
    process = start_suite(folder, "--jobs", "2")
    process.kill()
    wait_for_end(process)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A suite, and a folder of right results, to be copied."""
    folder = tmp_path_factory.mktemp("made")
    assert cli.main(["golden", *FEW[:-1], str(folder / "cases")]) == 0
    results = folder / "results"
    results.mkdir()
    for name in read_manifest(folder / "cases"):
        case = oracle.load(folder / "cases" / name)
        np.savez(results / name, **case.expected)
    return folder


@pytest.fixture
def suite(made, folder):
    """A suite, and a folder of right results."""
    shutil.copytree(made, folder, dirs_exist_ok=True)
    return folder / "results"


TIES, EMPTY = "eca-float16-3x32x7x9-ties", "eca-float16-0x32x7x9-empty"


def test_verify_judges_a_suite(command, suite):
    status, out, err = command("verify", "cases", "results", "--all")
    assert (status, err) == (0, "")
    assert out.splitlines()[-1] == "3 of 3 cases passed, 0 wrong, 0 not given"
    results = dict(np.load(suite / f"{TIES}.npz"))
    np.savez(suite / f"{TIES}.npz", **results | {"output": results["output"] * 1.1})
    status, out, _ = command("verify", "cases", "results")
    assert status == 1
    assert f"{TIES}.npz  WRONG\n" in out
    assert "1 of 4 results WRONG" in out


def test_verify_reads_plain_arrays_in_a_folder_a_case(command, suite):
    results = dict(np.load(suite / f"{TIES}.npz"))
    (suite / f"{TIES}.npz").unlink()
    (suite / TIES).mkdir()
    for name, y in results.items():
        np.save(suite / TIES / f"{name}.npy", y.astype(np.float32))
    assert command("verify", "cases", "results", "--all")[0] == 0
    assert command("verify", f"cases/{TIES}.npz", f"results/{TIES}", "--all")[0] == 0
    np.save(suite / TIES / "output.npy", 2 * results["output"])
    assert command("verify", "cases", "results")[0] == 1
    (suite / TIES / "output.npy").write_bytes(b"no array")
    status, out, _ = command("verify", "cases", "results")
    assert status == 2
    assert f"{TIES}.npz  BAD FILE: results/{TIES}: 'output.npy' is no .npy array" in out


def test_verify_asks_for_all_if_told_to(command, suite):
    results = dict(np.load(suite / f"{TIES}.npz"))
    np.savez(suite / f"{TIES}.npz", output=results["output"])
    assert command("verify", "cases", "results")[0] == 0
    status, out, _ = command("verify", "cases", "results", "--all")
    assert status == 1
    assert f"{TIES}.npz  INCOMPLETE" in out
    assert "NOT GIVEN" in out
    assert out.splitlines()[-1] == "2 of 3 cases passed, 0 wrong, 1 incomplete, 0 not given"
    assert command("verify", f"cases/{TIES}.npz", f"results/{TIES}.npz", "--all")[0] == 1
    (suite / f"{TIES}.npz").unlink()
    status, out, _ = command("verify", "cases", "results")
    assert status == 0
    assert out.splitlines()[-1] == "2 of 3 cases passed, 0 wrong, 1 not given"
    assert command("verify", "cases", "results", "--all")[0] == 1


def test_verdicts_for_programs(command, suite):
    results = dict(np.load(suite / f"{TIES}.npz"))
    np.savez(suite / f"{TIES}.npz", output=results["output"] * np.nan)
    (suite / f"{EMPTY}.npz").unlink()
    status, out, _ = command("verify", "cases", "results", "--json")
    found = json.loads(out, parse_constant=pytest.fail)
    assert (status, found["passed"]) == (1, False)
    by_name = {case["golden"].removeprefix("cases/").removesuffix(".npz"): case for case in found["cases"]}
    wrong, missing = by_name.pop(TIES), by_name.pop(EMPTY)
    assert not wrong["passed"]
    (judgement,) = wrong["judgements"]
    assert (judgement["name"], judgement["passed"], judgement["worst"]) == ("output", False, None)
    assert set(wrong["missing"]) == set(results) - {"output", "channel"}
    assert (missing["passed"], missing["results"], missing["judgements"]) == (True, None, None)
    (right,) = by_name.values()
    assert right["passed"]
    assert all(one["passed"] and one["worst"] <= one["worst_limit"] for one in right["judgements"])
    status, out, _ = command("verify", f"cases/{TIES}.npz", f"results/{TIES}.npz", "--json")
    assert json.loads(out)["cases"][0]["judgements"] == wrong["judgements"]


def test_a_bad_golden_file_stops_no_other(command, suite, folder):
    path = folder / "cases" / f"{TIES}.npz"
    path.write_bytes(path.read_bytes()[:-1])
    status, out, _ = command("verify", "cases", "results")
    assert status == 2
    assert f"{TIES}.npz  BAD FILE: cases/{TIES}.npz: missing, or altered" in out
    assert out.splitlines()[-1] == "2 of 3 cases passed, 0 wrong, 0 not given, 1 with a bad file"


@pytest.mark.parametrize(
    ("golden", "results", "words"),
    [
        ("results", "results", ["results: a folder without manifest.json"]),
        ("cases", f"results/{TIES}.npz", ["is no folder"]),
        ("cases", "none", ["none holds no results"]),
        ("cases", "typo", ["is named as no case of the suite; did you mean", TIES]),
        ("cases", "stray", ["a file or a folder of its name: stray/", "/output.npy"]),
        ("cases", "twice", ["are both results of", TIES]),
    ],
)
@pytest.mark.usefixtures("suite")
def test_other_folders_are_refused_in_one_line(command, folder, golden, results, words):
    for name, files in {
        "none": [],
        "typo": [f"{TIES}s.npz"],
        "stray": ["x.grad.npy"],
        "twice": [f"{TIES}.npz"],
    }.items():
        (folder / name).mkdir()
        for file in files:
            (folder / name / file).write_bytes(b"")
    (folder / "twice" / TIES).mkdir()
    assert_one_complaint(command("verify", golden, results), *words)
