import functools
import hashlib
import importlib
import json
import random
import re
import signal
import sys
import threading
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import pytest

import npattn
from npattn.oracle import cases, load, suite
from npattn.oracle.recipes import Recipe
from npattn.oracle.suites import SuiteReport, making, name_files, read_manifest
from npattn.oracle.suites.manifest import find_versions
from tests.interrupts import alarms_within
from tests.naming import for_each


class Counted(Executor):
    """An executor that makes each case at once, and counts them; some it can't."""

    def __init__(self, fails=()):
        self.made, self.fails = [], fails

    def submit(self, function, recipe):
        self.made.append(recipe.id)
        future = Future()
        if recipe.id in self.fails:
            future.set_exception(RuntimeError("out\nof luck"))
        else:
            future.set_result(function(recipe))
        return future


class Threads(Executor):
    """Two threads that keep no process from its end, if they have to wait for ever."""

    def __init__(self):
        self.calls, self.threads = SimpleQueue(), [threading.Thread(target=self.work, daemon=True) for _ in range(2)]
        for thread in self.threads:
            thread.start()

    def submit(self, function, recipe):
        future = Future()
        self.calls.put((future, function, recipe))
        return future

    def work(self):
        while call := self.calls.get():
            future, function, recipe = call
            if future.set_running_or_notify_cancel():
                future.set_result(function(recipe))

    def end(self):
        """Return whether all have come to their end."""
        for _ in self.threads:
            self.calls.put(None)
        for thread in self.threads:
            thread.join(60)
        return not any(thread.is_alive() for thread in self.threads)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_suite_is_golden_files_and_a_manifest_of_their_hashes_and_versions(recipes, tmp_path):
    folder = tmp_path / "new" / "cases"
    report = suite(recipes, folder)
    assert report
    assert [f"{recipe.id}.npz" for recipe in recipes] == report.made
    listed = json.loads((folder / "manifest.json").read_text())["cases"]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*report.made, "manifest.json"])
    assert {case["file"] for case in listed} == set(report.made)
    for case in listed:
        data = (folder / case["file"]).read_bytes()
        assert (case["sha256"], case["bytes"]) == (hashlib.sha256(data).hexdigest(), len(data))
        assert case["versions"] == find_versions()
        assert load(folder / case["file"]).values == case["recipe"]["values"]


@pytest.mark.parametrize("where", ["threads", "processes", "dask"])
def test_any_executor_makes_the_same_bytes(recipes, kept_here, tmp_path, where, request):
    if where == "threads":
        with ThreadPoolExecutor(2) as pool:
            suite(recipes, tmp_path / "there", pool)
    elif where == "processes":
        suite(recipes, tmp_path / "there", request.getfixturevalue("processes"))
    else:
        distributed = pytest.importorskip("distributed")
        cluster = distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0")
        with cluster, distributed.Client(cluster, set_as_default=False) as client:
            suite(recipes, tmp_path / "there", client.get_executor())
    assert contents(tmp_path / "there") == contents(kept_here)


def test_a_suite_goes_on_where_it_was(recipes, tmp_path):
    first, rest = recipes[:2], [recipe.id for recipe in recipes[2:]]
    suite(first, tmp_path, Counted())
    executor = Counted()
    report = suite(recipes, tmp_path, executor)
    assert executor.made == rest
    assert report.kept == [f"{recipe.id}.npz" for recipe in first]
    assert suite(recipes, tmp_path, unused := Counted()).kept == [f"{recipe.id}.npz" for recipe in recipes]
    assert unused.made == []


def test_files_hold_steps_where_they_are_asked_for_and_are_kept_where_they_are_not(recipes, tmp_path):
    plain, whole = recipes[:1], recipes[:2]
    names = [f"{recipe.id}.npz" for recipe in whole]
    suite(plain, tmp_path)
    assert suite(whole, tmp_path, steps=True).made == names
    for name in names:
        steps = load(tmp_path / name).measured_steps
        assert list(steps) == list(recipes[0].make().steps())
    for asked in (True, False):
        assert suite(whole, tmp_path, unused := Counted(), steps=asked).kept == names
        assert unused.made == []
    assert sorted(read_manifest(tmp_path)) == sorted(names)
    assert [entry.recipe["steps"] for entry in read_manifest(tmp_path).values()] == [True, True]


def test_steps_are_the_same_on_processes(recipes, processes, tmp_path):
    suite(recipes, tmp_path / "here", steps=True)
    suite(recipes, tmp_path / "there", processes, steps=True)
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


def test_an_interruption_keeps_what_was_made(recipes, tmp_path):
    def interrupt(progress):
        if progress.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        suite(recipes, tmp_path, progress=interrupt)
    executor = Counted()
    assert len(suite(recipes, tmp_path, executor).kept) == 2
    assert len(executor.made) == len(recipes) - 2


def test_what_was_made_is_in_the_manifest_before_the_end(recipes, tmp_path, monkeypatch):
    """A process that is killed has no end."""
    monkeypatch.setattr(making, "MANIFEST_SECONDS", 0.0)
    listed = []

    def look(progress):
        listed.append(sum(entry.sha256 is not None for entry in read_manifest(tmp_path).values()))

    suite(recipes, tmp_path, progress=look)
    assert listed == [1, 2, 3]


def test_files_are_whole_or_absent(recipes, tmp_path, monkeypatch):
    def fill_the_disk(path, data):
        with path.open("wb") as file:
            file.write(data[:100])
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", fill_the_disk)
        with pytest.raises(OSError, match="no space left"):
            suite(recipes, tmp_path)
    assert list(contents(tmp_path)) == ["manifest.json"]
    suite(recipes[:1], tmp_path)
    before = contents(tmp_path)

    def fill_it_sooner(path, text, encoding):
        fill_the_disk(path, text.encode())

    monkeypatch.setattr(Path, "write_text", fill_it_sooner)
    with pytest.raises(OSError, match="no space left"):
        suite(recipes, tmp_path)
    assert contents(tmp_path) == before


class Watched(ThreadPoolExecutor):
    """A thread, and how many recipes it was given at once; those that it began."""

    def __init__(self):
        super().__init__(1)
        self.given = self.most = 0
        self.begun = []

    def submit(self, function, recipe):
        def begin():
            self.begun.append(recipe.id)
            return function(recipe)

        self.given += 1
        self.most = max(self.most, self.given)
        future = super().submit(begin)
        future.add_done_callback(self.end)
        return future

    def end(self, future):
        self.given -= 1


def test_an_executor_is_given_no_more_at_once_than_memory_holds(recipes, tmp_path, monkeypatch):
    monkeypatch.setattr(making, "IN_FLIGHT", 2)
    with Watched() as pool:
        assert suite(recipes, tmp_path, pool)
    assert pool.most == 2


def test_an_interruption_begins_nothing_more(recipes, tmp_path):
    def interrupt(progress):
        raise KeyboardInterrupt

    more = recipes + cases("eca", ["bfloat16"], kinds=["ties", "zeros", "empty", "layouts"])
    with Watched() as pool, pytest.raises(KeyboardInterrupt):
        suite(more, tmp_path, pool, progress=interrupt)
    assert len(pool.begun) < len(more)


@pytest.mark.parametrize("spoil", ["altered", "missing", "other recipe", "other npattn", "never made"])
def test_a_file_is_made_again_unless_hash_recipe_and_version_are_the_manifests(recipes, made, spoil):
    before = contents(made)
    name = f"{recipes[0].id}.npz"
    manifest = made / "manifest.json"
    text = manifest.read_text()
    if spoil == "altered":
        (made / name).write_bytes(before[name][:-1] + b"!")
    elif spoil == "missing":
        (made / name).unlink()
    else:
        found = json.loads(text)
        case = next(case for case in found["cases"] if case["file"] == name)
        if spoil == "other npattn":
            case["versions"]["source"] = "0" * 64
        elif spoil == "never made":
            case["sha256"] = None
        else:
            case["recipe"]["seed"] = 5
        manifest.write_text(json.dumps(found))
    executor = Counted()
    report = suite(recipes, made, executor)
    assert executor.made == [recipes[0].id]
    assert len(report.kept) == len(recipes) - 1
    if spoil != "other recipe":
        assert contents(made) == before


def test_a_failed_recipe_is_named_and_stops_no_other(recipes, tmp_path):
    report = suite(recipes, tmp_path, Counted(fails=[recipes[1].id]))
    name = f"{recipes[1].id}.npz"
    assert not report
    assert report.failed == {name: "RuntimeError: out of luck"}
    assert len(report.made) == len(recipes) - 1
    assert f"{len(recipes) - 1} made, 0 kept, 1 failed" in str(report)
    assert f"{name}: RuntimeError: out of luck" in str(report)
    assert read_manifest(tmp_path)[name].error == "RuntimeError: out of luck"
    assert suite(recipes, tmp_path).made == [name]
    assert read_manifest(tmp_path)[name].error is None


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interrupts by a timer")
def test_an_interrupt_leaves_nothing_locked_that_an_executor_waits_for(tmp_path, monkeypatch):
    monkeypatch.setattr(making, "make_file", lambda recipe, *, steps: time.sleep(1e-4))
    recipes = dict.fromkeys(map(str, range(100_000)))
    moments = random.Random(0)
    with alarms_within(making.Run.make_on):
        for _ in range(60):
            executor = Threads()
            run = making.Run(tmp_path, {}, SuiteReport(tmp_path), len(recipes), False, None)
            signal.setitimer(signal.ITIMER_REAL, moments.uniform(2e-3, 2e-2), 1e-2)  # one may come too early
            with pytest.raises(KeyboardInterrupt):
                run.make_on(executor, recipes)
            assert executor.end()


def test_an_interrupt_while_work_is_handed_over_leaves_none_that_nobody_knows(recipes, tmp_path):
    class Interrupted(Executor):
        given = Future()

        def submit(self, function, recipe):
            signal.raise_signal(signal.SIGINT)
            return self.given

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            suite(recipes, tmp_path, Interrupted())
    finally:
        signal.signal(signal.SIGINT, before)
    assert Interrupted.given.cancelled()


def test_what_fails_here_is_named_too(recipes, tmp_path, monkeypatch):
    golden = making.make.__wrapped__

    def fail_once(recipe, **options):
        if recipe == recipes[0]:
            error = MemoryError("too large")
            error.add_note("give smaller maps")
            raise error
        return golden(recipe, **options)

    monkeypatch.setattr(making.make, "__wrapped__", fail_once)
    assert suite(recipes, tmp_path).failed == {f"{recipes[0].id}.npz": "MemoryError: too large; give smaller maps"}


def test_a_class_that_no_other_process_finds_is_told_with_what_to_do(processes, tmp_path):
    class Local(npattn.SimAM):
        pass

    report = suite([Recipe(Local(channels=4), "float32", 1, 2, 2)], tmp_path, processes)
    assert "in a module by a name; without that leave out executor" in report.failed["Local-float32-1x4x2x2.npz"]


def test_a_broken_pool_fails_all_that_it_was_to_make(recipes, tmp_path):
    with ThreadPoolExecutor(1) as pool:
        pool.shutdown()
        assert len(suite(recipes, tmp_path, pool).failed) == len(recipes)


def test_results_of_another_npattn_are_refused(recipes, tmp_path, monkeypatch):
    other = making.Made(b"", find_versions() | {"npattn": "9"})
    monkeypatch.setattr(making, "make_file", lambda recipe, steps: other)
    (why, *_) = suite(recipes, tmp_path).failed.values()
    assert "install the same" in why
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_foreign_files_stay_as_they_are(recipes, tmp_path):
    foreign = {"notes.txt": b"mine", f"{recipes[0].id}.npz": b"mine too"}
    for name, data in foreign.items():
        (tmp_path / name).write_bytes(data)
    for _ in range(2):
        report = suite(recipes, tmp_path)
        assert list(report.failed) == [f"{recipes[0].id}.npz"]
        assert "move it away" in report.failed[f"{recipes[0].id}.npz"]
        assert foreign.items() <= contents(tmp_path).items()


def test_files_of_other_recipes_stay_listed(recipes, tmp_path):
    suite(recipes[:1], tmp_path)
    suite(recipes[1:], tmp_path)
    assert set(read_manifest(tmp_path)) == {f"{recipe.id}.npz" for recipe in recipes}


def test_recipes_of_one_name_have_files_of_their_own(tmp_path):
    recipes = [
        replace(cases(npattn.EfficientChannelAttention(4, kernel_size=size), ["float16"], kinds=["ties"])[0], label="")
        for size in (1, 3, 3)
    ]
    report = suite(recipes, tmp_path)
    plain, other = report.made
    assert plain == f"{recipes[0].id}.npz"
    assert re.fullmatch(rf"{recipes[0].id}-[0-9a-f]{{12}}\.npz", other)
    assert [load(tmp_path / name).module.kernel_size for name in report.made] == [1, 3]
    assert suite(recipes[::-1], tmp_path).kept == [other, plain]


@pytest.mark.parametrize(
    ("recipes", "executor", "words"),
    [
        ("eca", None, "expected recipes, as npattn.oracle.cases"),
        ([3], None, "recipes holds 3"),
        ([], 4, "executor is"),
        ([], ThreadPoolExecutor, "executor is the class .*ThreadPoolExecutor; expected one of it: ThreadPoolExecutor"),
    ],
)
def test_other_arguments_are_refused(tmp_path, recipes, executor, words):
    with pytest.raises(TypeError, match=words):
        suite(recipes, tmp_path, executor)


@for_each(
    ("options", "told"),
    [
        ({"progress": 3}, "suite: progress is an int; expected a function of a Progress"),
        ({"progress": "yes"}, "suite: progress is a str; expected a function"),
        ({"folder": None}, "suite: folder=None is a NoneType; expected a path"),
        ({"folder": b"cases"}, "suite: folder=b'cases' is a bytes; expected a path"),
        ({"folder": 3}, "suite: folder=3 is an int; expected a path"),
        ({"folder": ["cases"]}, "suite: folder=['cases'] is a list; expected a path"),
    ],
)
def test_options_of_other_kinds_are_refused_before_anything_is_made(tmp_path, monkeypatch, options, told):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TypeError) as caught:
        suite([], **({"folder": "made"} | options))
    assert str(caught.value).startswith(told)
    assert not list(tmp_path.iterdir())


@for_each(
    "odd",
    [{"seed": Fraction(1, 2)}, {"height": 2j}, {"values": b"ones"}, {"seed": [1]}, {"batch": {}}],
)
def test_a_recipe_that_can_not_be_written_is_named_and_stops_no_other(recipes, made, odd):
    before = contents(made)
    bad = replace(recipes[0], **odd)
    report = suite([bad, *recipes, bad], made)
    assert report.kept == [f"{recipe.id}.npz" for recipe in recipes]
    assert len(report.failed) == 1
    assert all(next(iter(odd)) in why for why in report.failed.values())
    assert contents(made) | before == contents(made)
    read_manifest(made)


def test_integers_of_numpy_make_the_recipes_that_pythons_do(recipes, made):
    given = [replace(r, batch=np.int64(r.batch), height=np.uint8(r.height), seed=np.int32(r.seed)) for r in recipes]
    assert suite(given, made).kept == [f"{recipe.id}.npz" for recipe in recipes]


def test_progress_counts_every_recipe(recipes, tmp_path):
    seen = []
    suite(recipes[:2], tmp_path)
    suite(recipes, tmp_path, Counted(fails=[recipes[2].id]), progress=seen.append)
    assert [state.done for state in seen] == list(range(1, len(recipes) + 1))
    assert {state.total for state in seen} == {len(recipes)}
    assert seen[-1].failed == 1


OWN = """
from dataclasses import dataclass
from npattn import Module, Pass
import helping_own

@dataclass(frozen=True)
class Scaled(Module):
    channels: int = 2

    def forward(self, params, x):
        return Pass(helping_own.scale(x), lambda dy: (helping_own.scale(dy), {}))
"""
HELPING = "def scale(x):\n    return 2 * x\n"


def made_and_kept(folder, sources, own=OWN, helping=HELPING):
    """A suite of one system of somebody's own, whose files are read anew."""
    for name, text in (("helping_own", helping), ("scaled_own", own)):
        (sources / f"{name}.py").write_text(text)
        sys.modules.pop(name, None)
    importlib.invalidate_caches()
    system = importlib.import_module("scaled_own").Scaled
    report = suite([Recipe(system(), "float32", 1, 2, 2)], folder)
    return len(report.made), len(report.kept)


def test_a_file_of_somebodys_own_system_is_kept_as_long_as_its_code_is_the_same(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    run = functools.partial(made_and_kept, tmp_path / "cases", tmp_path)
    assert [run(), run()] == [(1, 0), (0, 1)]
    assert run(helping=HELPING.replace("2 *", "3.0 *")) == (1, 0)  # what it calls
    assert run(own=OWN.replace("scale(x)", "scale(x) * 1"), helping=HELPING) == (1, 0)
    for name in ("helping_own", "scaled_own"):
        sys.modules.pop(name)


SETTING = """
import os
import threading
LOCK = threading.Lock()
FACTORS = [float(os.environ["FACTOR"])]

def scale(x):
    with LOCK:
        return FACTORS[0] * x
"""


def test_a_file_of_somebodys_own_system_is_kept_as_long_as_its_module_holds_the_same(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    found = []
    for factor in ("2", "2", "3"):
        monkeypatch.setenv("FACTOR", factor)
        found.append(made_and_kept(tmp_path / "cases", tmp_path, helping=SETTING))
    assert found == [(1, 0), (0, 1), (1, 0)]
    for name in ("helping_own", "scaled_own"):
        sys.modules.pop(name)


def test_files_of_a_system_whose_code_is_in_no_file_are_made_again(tmp_path):
    space = {"__name__": "nowhere"}
    exec(OWN.replace("import helping_own", "").replace("helping_own.scale", "(lambda x: x * 2)"), space)
    recipe = Recipe(space["Scaled"](), "float32", 1, 2, 2)
    for _ in range(2):
        assert len(suite([recipe], tmp_path).made) == 1


@dataclass(frozen=True)
class Typed(npattn.Module):
    """A system of which no file can say what it is."""

    channels: int = 2
    activation: object = max

    def forward(self, params, x):
        return npattn.Pass(2 * x, lambda dy: (2 * dy, {}))


def test_failed_recipes_of_one_class_are_told_by_their_own_names(tmp_path):
    recipes = [Recipe(Typed(), "float32", 1, height, 2) for height in (2, 3)]
    report = suite(recipes, tmp_path)
    assert list(report.failed) == [f"{recipe.id}.npz" for recipe in recipes]
    assert all("activation can't be saved" in why for why in report.failed.values())


def scaled_by(number, origin):
    """Make a class that has the same name whatever its number."""

    @dataclass(frozen=True)
    class Scaled(npattn.Module):
        channels: int = 2

        def forward(self, params, x):
            return npattn.Pass(number * x, lambda dy: (number * dy, {}))

    Scaled.__module__ = origin
    return Scaled()


def test_systems_of_one_name_have_files_of_their_own_however_often_they_are_made(tmp_path):
    modules = [scaled_by(number, origin) for number, origin in ((2, "mine"), (3, "yours"), (4, "yours"), (5, "yours"))]
    modules += [npattn.Residual(module) for module in modules]
    recipes = [Recipe(module, "float32", 1, 2, 2) for module in modules]
    named = []
    for _ in range(2):
        report = suite(recipes, tmp_path)
        assert report
        named.append(sorted([*report.made, *report.kept]))
        found = [load(tmp_path / name) for name in named[-1]]
        factors = [(case.expected["output"] / case.inputs["x"]).round(6).flat[0] for case in found]
        assert sorted(factors) == [2, 3, 3, 4, 4, 5, 5, 6]
    assert named[0] == named[1]
    assert len(set(named[0])) == len(recipes)


def test_systems_that_differ_in_what_they_capture_keep_their_files_in_whatever_order_they_come(tmp_path):
    def run(*numbers):
        return suite([Recipe(scaled_by(number, "mine"), "float32", 1, 2, 2) for number in numbers], tmp_path)

    def factors(names):
        found = [load(tmp_path / name) for name in names]
        return [(case.expected["output"] / case.inputs["x"]).round(6).flat[0] for case in found]

    first = run(2, 3, 4).made
    assert factors(first) == [2, 3, 4]
    assert run(4, 3, 2).kept == first[::-1]
    for number, name in zip((2, 3, 4), first, strict=True):  # alone, as in a run that was asked for a part
        assert run(number).kept == [name]
    report = run(5, 3)
    assert report.kept == [first[1]]
    assert factors(report.made) == [5]
    assert factors(first) == [2, 3, 4]


def test_files_of_a_system_that_captures_what_nobody_can_write_are_made_again(tmp_path):
    for _ in range(2):
        report = suite([Recipe(scaled_by(Weight(2.0), "mine"), "float32", 1, 2, 2)], tmp_path)
        assert len(report.made) == 1, report.failed


class Weight:
    """A number whose text is another in every process."""

    def __init__(self, number):
        self.number = number

    def __mul__(self, x):
        return self.number * x


def test_names_that_are_cut_alike_are_told_apart_and_known_before(tmp_path):
    module = npattn.EfficientChannelAttention(channels=3, kernel_size=1)
    recipes = [Recipe(module, "float16", 1, 2, 3, seed=seed, label="long" * 40) for seed in (1, 2)]
    names = list(name_files(recipes))
    assert names[0] == f"{recipes[0].id[:120]}.npz"
    assert re.fullmatch(rf"{recipes[1].id[:120]}-[0-9a-f]{{12}}\.npz", names[1])
    assert suite(recipes, tmp_path).made == names
    assert {entry.file: entry.id for entry in read_manifest(tmp_path).values()} == {
        name: recipe.id for name, recipe in zip(names, recipes, strict=True)
    }
