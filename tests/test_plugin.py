"""The plugin, by pytest runs of small test files."""

import contextlib
import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]
# What is first loaded within a run of pytester is forgotten after it; NumPy and PyTorch can't be loaded twice.
for name in ("npattn.oracle.recipes", "scipy.special"):
    importlib.import_module(name)
with contextlib.suppress(ImportError):
    importlib.import_module("torch")
ROOT = Path(__file__).parents[1]
RIGHT = "run = case.module(case.params, case.inputs['x']); y = run.output"


@pytest.fixture
def run(pytester, monkeypatch):
    """Run pytest on a test file, with the plugin and no other."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def run(source, *options):
        pytester.makepyfile(source)
        return pytester.runpytest_inprocess(
            "-p", "npattn.plugin", "--strict-markers", "-p", "no:cacheprovider", *options
        )

    return run


def collected(result):
    """The ids that pytest --collect-only -q printed."""
    return re.findall(r"\[([\w-]+)\]", result.stdout.str())


def marked(arguments, body=f"{RIGHT}; case.assert_matches({{'output': y}})"):
    """A test file of one marked test."""
    return f"import pytest\n\n@pytest.mark.golden({arguments})\ndef test_kernel(case):\n    {body}\n"


def test_the_package_brings_the_plugin():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"npattn": "npattn.plugin"}


def test_loading_the_plugin_imports_no_numpy():
    code = "import sys, pytest; before = set(sys.modules); import npattn.plugin; print(*(set(sys.modules) - before))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert sorted(loaded) == ["npattn", "npattn.plugin"]


def test_a_marked_test_runs_on_every_case(run):
    result = run(marked("'eca', formats=['float32'], kinds=['ties', 'zeros', 'options']"))
    result.assert_outcomes(passed=5)


def test_ids_can_be_selected_by(run):
    chosen = collected(run(marked("'eca', 'pam'"), "--collect-only", "-q", "-k", "pam and bfloat16 and large"))
    assert chosen == ["pam-bfloat16-3x16x7x9-large"]


def test_nothing_is_made_at_collection(run, monkeypatch):
    monkeypatch.setattr(sys.modules["npattn.oracle.recipes"], "golden", lambda *_, **__: pytest.fail("made"))
    result = run(marked("'eca', 'danet'"), "--collect-only", "-q")
    assert result.ret == 0
    assert len(collected(result)) > 100


def test_systems_formats_kinds_and_limit_choose(run):
    chosen = collected(
        run(marked("'se', 'cam', formats=['float16'], kinds=['sizes'], limit=2"), "--collect-only", "-q")
    )
    assert len(chosen) == 4
    assert {re.match(r"\w+-\w+", name)[0] for name in chosen} == {"se-float16", "cam-float16"}


def test_a_class_and_a_module_are_systems_too(run):
    source = "import npattn\n" + marked(
        "npattn.PositionAttention(5), npattn.ChannelAttention, formats=['float16'], kinds=['zeros']"
    )
    assert collected(run(source, "--collect-only", "-q")) == [
        "pam-float16-3x5x7x9-zeros",
        "cam-float16-3x32x7x9-zeros",
    ]


def test_shapes_and_hyperparameters_are_chosen_in_the_marker(run):
    arguments = "'eca', formats=['float16'], shapes=[(2, 24, 5, 6), (1, 9, 8)], kernel_size=5"
    body = f"assert case.params['conv.weight'].size == 5; {RIGHT}; case.assert_matches({{'output': y}})"
    run(marked(arguments, body)).assert_outcomes(passed=2)
    assert collected(run(marked(arguments), "--collect-only", "-q")) == [
        "eca-float16-2x24x5x6-kernel_size-5",
        "eca-float16-1x32x9x8-kernel_size-5",
    ]


def test_a_marker_without_a_case_is_refused(run):
    result = run(marked("'simam', formats=[]"))
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*formats=[[]]; expected at least one of float32, tf32,*"])
    own = "import npattn\nclass Own(npattn.SimAM):\n    options = ()\n\n"
    result = run(own + marked("Own(8), kinds=['options'], formats=['float32']"))
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*golden(Own(*), kinds=* has no cases, so that nothing would be*"])


def test_a_format_is_selected_by_its_name_after_the_systems(run):
    source = marked("'eca', formats=['float16', 'bfloat16'], kinds=['ties', 'zeros']")
    selected = collected(run(source, "--collect-only", "-q", "-k", "eca-float16"))
    assert selected == ["eca-float16-3x32x7x9-ties", "eca-float16-3x32x7x9-zeros"]


def test_modules_that_differ_in_what_no_id_says_are_all_tested(run):
    modules = ", ".join(f"npattn.PositionAttention(8, reduction={reduction})" for reduction in (2, 4, 2))
    source = "import npattn\n" + marked(f"{modules}, formats=['float16'], kinds=['zeros']")
    ids = collected(run(source, "--collect-only", "-q"))
    assert len(ids) == len(set(ids)) == 2


def test_markers_of_class_and_test_add_up_without_repeating(run):
    source = """
        import pytest

        @pytest.mark.golden("eca", formats=["float16"], kinds=["ties"])
        class TestKernel:
            @pytest.mark.golden("eca", formats=["float16"], kinds=["ties", "zeros"])
            @pytest.mark.parametrize("layout", ["a", "b"])
            def test_kernel(self, case, layout): ...
    """
    assert len(collected(run(source, "--collect-only", "-q"))) == 4


def test_a_failure_shows_the_report_and_no_code_of_npattn(run):
    result = run(
        marked("'eca', formats=['float16'], kinds=['ties']", f"{RIGHT}\n    case.assert_matches({{'output': 1.1 * y}})")
    )
    result.assert_outcomes(failed=1)
    text = result.stdout.str()
    result.stdout.fnmatch_lines(["E *1 of 1 results WRONG*", "E *worst*limit*rms*", "E *output *WRONG"])
    assert ">       case.assert_matches" in text or ">   case.assert_matches" in text
    assert not re.search(r"npattn[\\/]oracle", text)


BAD_MARKERS = {
    "'ecs'": "golden('ecs'): cases: system='ecs'; did you mean 'eca'?",
    "": "golden() names no system; expected some, such as golden('eca')",
    "'eca', formats=['fp8']": "dtype='fp8'; did you mean 'float8_e4m3' or 'float8_e5m2'?",
    "'eca', format=['float16']": "unknown hyperparameter 'format'; did you mean 'formats'?",
    "'eca', 'se', reduction=4": "EfficientChannelAttention: unknown hyperparameter 'reduction'",
    "'eca', shapes=[(7, 7)]": "shapes holds (7, 7); expected (batch, channels, height, width)",
    "'eca', kernel_size=4": "kernel_size=4; expected an odd number",
    "'eca', kinds=['size']": "kinds holds an unknown 'size'; did you mean 'sizes'?",
    "'eca', limit=0": "limit=0; expected an integer of at least 1",
}


def test_every_bad_marker_is_a_usage_error_of_one_line(run, pytester):
    pytester.makepyfile(**{f"test_{i}": marked(arguments) for i, arguments in enumerate(BAD_MARKERS)})
    result = run("")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.assert_outcomes(errors=len(BAD_MARKERS))
    text = result.stdout.str()
    for i, words in enumerate(BAD_MARKERS.values()):
        line = next(line for line in text.splitlines() if words in line)
        assert line.startswith(f"test_{i}.py::test_kernel: ")
    assert "Traceback" not in text
    assert "plugin.py" not in text


def test_a_marked_test_without_the_argument_is_told_so(run):
    result = run("import pytest\n@pytest.mark.golden('eca')\ndef test_kernel(): ...")
    result.stdout.fnmatch_lines(["*::test_kernel: marked golden, but has no argument `case` to be handed; add it"])


def test_the_argument_without_a_marker_is_told_so(run):
    result = run("def test_kernel(case): ...")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*`case` comes with a marker: @pytest.mark.golden('eca')*"])


def test_other_tests_and_cases_are_left_alone(run):
    source = """
        import pytest

        @pytest.mark.parametrize("case", [1, 2])
        def test_own_cases(case):
            assert case in (1, 2)

        class TestOwnFixture:
            @pytest.fixture
            def case(self):
                return 3

            def test_it(self, case):
                assert case == 3
    """
    run(source).assert_outcomes(passed=3)


def test_the_readmes_examples_run(run):
    pytest.importorskip("torch")
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    example, causal = [block for block in blocks if "pytest.mark.golden" in block]
    causal = f"import pytest\nimport torch\n{causal}"
    run(causal, "-k", "1x63x65x65 or ties").assert_outcomes(passed=6, deselected=87)
    run(causal.replace("is_causal=True, ", ""), "-k", "bfloat16 and ties").assert_outcomes(failed=1, deselected=92)
    run(example, "-k", "1x65 or ties").assert_outcomes(passed=6, deselected=72)
    wrong = example.replace("x * gate", "x + gate")
    result = run(wrong, "-k", "bfloat16-1x65")
    result.assert_outcomes(failed=1, deselected=77)


@pytest.fixture
def run_with_cache(pytester, monkeypatch):
    """Run pytest with the plugin and its cache, on a test file, and count the cases that are made."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    module = sys.modules["npattn.oracle.recipes"]
    golden, made = module.golden, []
    monkeypatch.setattr(module, "golden", lambda *args, **options: made.append(args) or golden(*args, **options))

    def run(source, *options):
        made.clear()
        module.make.cache_clear()
        pytester.makepyfile(source)
        return pytester.runpytest_inprocess("-p", "npattn.plugin", *options), len(made)

    return run


FOUR = "'eca', formats=['float32'], kinds=['ties', 'layouts'], limit=4"
EVERYTHING = (
    f"{RIGHT}; case.assert_matches({{'output': y}}); print(case, case.inputs['x'].strides, hash(str(case.budget)))"
)


def printed(result):
    """What tests have printed of their cases."""
    return sorted(line for line in result.stdout.lines if line.startswith("Case("))


def test_a_second_run_makes_nothing_anew(run_with_cache):
    first, made = run_with_cache(marked(FOUR, EVERYTHING), "-rP")
    first.assert_outcomes(passed=4)
    assert made == 4
    second, made = run_with_cache(marked(FOUR, EVERYTHING), "-rP")
    second.assert_outcomes(passed=4)
    assert made == 0
    assert printed(second) == printed(first) != []


@pytest.mark.usefixtures("without_budgets")
def test_cache_clear_and_another_recipe_make_anew(run_with_cache):
    run_with_cache(marked(FOUR))
    assert run_with_cache(marked(FOUR + ", seed=1"))[1] == 4
    assert run_with_cache(marked(FOUR), "--cache-clear")[1] == 4


def kept(pytester):
    return sorted(pytester.path.glob(".pytest_cache/d/npattn/*/*.npz"))


@pytest.mark.usefixtures("without_budgets")
def test_damaged_entries_are_made_anew(run_with_cache, pytester):
    run_with_cache(marked(FOUR))
    empty, foreign, short, whole = entries = kept(pytester)
    empty.write_bytes(b"")
    foreign.write_bytes(b"PK\x03\x04 cut")
    short.write_bytes(short.read_bytes()[:-100])
    left = whole.stat().st_mtime_ns
    result, made = run_with_cache(marked(FOUR))
    result.assert_outcomes(passed=4)
    assert made == 3
    assert run_with_cache(marked(FOUR))[1] == 0
    assert kept(pytester) == entries
    assert whole.stat().st_mtime_ns == left


@pytest.mark.usefixtures("without_budgets")
def test_entries_of_another_npattn_are_removed(run_with_cache, pytester, monkeypatch):
    run_with_cache(marked(FOUR))
    keeping = sys.modules["npattn.oracle.suites.keeping"]
    monkeypatch.setattr(keeping, "find_source", lambda: "f" * 64)
    assert run_with_cache(marked(FOUR))[1] == 4
    assert {path.parent.name[-16:] for path in kept(pytester)} == {"f" * 16}


@pytest.mark.usefixtures("without_budgets")
def test_cases_of_ones_own_systems_are_always_made(run_with_cache, pytester):
    own = "import npattn\nclass Own(npattn.EfficientChannelAttention): ...\n"
    for _ in range(2):
        assert run_with_cache(own + marked("Own(8), formats=['float16'], kinds=['ties']"))[1] == 1
    assert kept(pytester) == []


@pytest.mark.usefixtures("without_budgets")
def test_a_cache_that_cant_be_written_fails_no_test(run_with_cache, pytester):
    (pytester.path / ".pytest_cache/d/npattn").mkdir(parents=True)
    (pytester.path / ".pytest_cache/d/npattn").rmdir()
    (pytester.path / ".pytest_cache/d/npattn").write_text("no folder")
    result, made = run_with_cache(marked(FOUR))
    result.assert_outcomes(passed=4)
    assert made == 4


def test_workers_that_make_the_same_case_at_once_do_not_break(pytester, monkeypatch):
    pytest.importorskip("xdist")
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    twice = f"{marked(FOUR)}\n\ndef test_again(case): ...\ntest_again = pytest.mark.golden({FOUR})(test_again)\n"
    pytester.makepyfile(twice)
    result = pytester.runpytest_subprocess("-p", "npattn.plugin", "-p", "xdist.plugin", "-n", "2")
    result.assert_outcomes(passed=8)
    assert len(kept(pytester)) == 4


def test_a_method_of_unittest_is_told_what_to_do(run):
    source = """
        import unittest
        import pytest

        class TestKernel(unittest.TestCase):
            @pytest.mark.golden("eca")
            def test_kernel(self): ...

            def test_other(self): ...
    """
    result = run(source)
    result.assert_outcomes(errors=1, passed=1)
    (line,) = {line for line in result.stdout.lines if "unittest.TestCase:" in line and not line.startswith("ERROR")}
    assert "loop over npattn.oracle.cases('eca') with self.subTest" in line


@pytest.mark.parametrize("scope", ["function", "module"])
def test_a_fixture_that_stands_before_ours_is_noticed(run, scope):
    own = f"\n\n@pytest.fixture(scope='{scope}')\ndef case(): return 3\n\ndef test_unmarked(case): assert case == 3\n"
    result = run(marked("'eca', formats=['float16'], kinds=['ties']", "...") + own)
    result.assert_outcomes(failed=1, passed=1)
    assert "a fixture `case` of its module, class or conftest stands before npattn's" in result.stdout.str()


@pytest.mark.parametrize("by_mark", [False, True])
def test_parameters_that_the_argument_has_besides_are_noticed(run, by_mark):
    source = marked("'eca', formats=['float16'], kinds=['ties']", "...")
    if by_mark:
        source = source.replace("@pytest.mark.golden", "@pytest.mark.parametrize('case', [1])\n@pytest.mark.golden")
    else:
        source += "\n\n@pytest.fixture(params=[1, 2])\ndef case(request): return request.param\n"
    told = " ".join(run(source).stdout.str().split())
    assert "its argument `case` has parameters already, of pytest.mark.parametrize or of a fixture `case`" in told


def test_a_fixture_that_builds_on_ours_is_welcome(run):
    own = "\n\n@pytest.fixture\ndef case(case): return case, 3\n"
    body = "case, three = case; assert three == 3; case.assert_matches({'output': case.expected['output']})"
    run(marked("'eca', formats=['float16'], kinds=['ties']", body) + own).assert_outcomes(passed=1)


def test_primitives_are_systems_by_name(run):
    source = marked("'ops.softmax', 'ops.batch_norm', 'ops.conv2d', formats=['bfloat16'], limit=2")
    chosen = collected_ids(run(source, "--collect-only", "-q"))
    keys = ["ops.softmax", "ops.batch_norm", "ops.conv2d"]
    assert [name.partition("-")[0] for name in chosen] == [key for key in keys for _ in range(2)]
    run(source).assert_outcomes(passed=6)
    result = run(marked("'ops.softmx'"), "--collect-only", "-q")
    assert "system='ops.softmx'; did you mean 'ops.softmax'?" in result.stdout.str()


def collected_ids(result):
    """The ids that pytest --collect-only -q printed, with dots in them."""
    return re.findall(r"\[([\w.-]+)\]", result.stdout.str())


GROUPED = """
import pytest
from dataclasses import dataclass
from npattn import Module, Pass

@dataclass(frozen=True)
class Grouped(Module):
    channels: int = 4

    {refusal}

    def input_shapes(self, batch, height, width):
        return {{"x": (batch, height * width, self.channels)}}

    def forward(self, params, x):
        parts = x.reshape(len(x), -1, 2, x.shape[2]{by}) if x.size else x
        return Pass(2 * parts.reshape(x.shape), lambda dy: (2 * dy, {{}}))

@pytest.mark.golden(Grouped, formats=["float32"], kinds=["sizes"])
def test_kernel(case):
    case.assert_matches({{"output": case.expected["output"]}})
"""
CHANNELS = """def __post_init__(self):
        super().__post_init__()
        if self.channels % 2:
            raise ValueError("odd")"""
TOKENS = """def check_inputs(self, inputs):
        super().check_inputs(inputs)
        if inputs[0].shape[1] % 2:
            raise ValueError("odd")"""


@pytest.mark.parametrize(("refusal", "by"), [(CHANNELS, " // 2"), (TOKENS, "")], ids=["channels", "tokens"])
def test_an_own_systems_error_says_how_sizes_are_refused_and_such_cases_are_then_left_out(run, refusal, by):
    result = run(GROUPED.format(refusal="", by=by))
    assert result.parseoutcomes()["errors"] > 3
    told = " ".join(result.stdout.str().split())
    assert "cannot reshape array" in told
    assert "raised by Grouped itself. If it takes no such hyperparameters or sizes" in told
    outcomes = run(GROUPED.format(refusal=refusal, by=by)).parseoutcomes()
    assert outcomes.keys() == {"passed"}


def test_a_class_alone_which_pytest_would_mark_in_place_of_the_test_is_told_how_it_is_written(run):
    source = GROUPED.format(refusal=CHANNELS, by=" // 2")
    alone = source.replace('(Grouped, formats=["float32"], kinds=["sizes"])', "(Grouped)")
    assert alone != source
    result = run(alone)
    assert result.parseoutcomes() == {"errors": 1}
    result.stdout.fnmatch_lines(["*of the class, not of test_kernel: write @pytest.mark.golden.with_args(Grouped)"])
    outcomes = run(alone.replace("golden(Grouped)", "golden.with_args(Grouped)")).parseoutcomes()
    assert outcomes.keys() == {"passed"}


def test_a_class_alone_that_is_no_system_does_not_make_the_test_vanish(run):
    source = """
import pytest

class Softmax:
    {marks}
    def __init__(self, dim):
        self.dim = dim

{made}
{marker}
def test_kernel(case):
    assert False
"""
    result = run(source.format(marks="", made="", marker="@pytest.mark.golden(Softmax)"))
    assert result.parseoutcomes() == {"errors": 1}
    result.stdout.fnmatch_lines(["*::test_kernel: pytest takes @pytest.mark.golden(Softmax) for a mark of the class,*"])
    # Marks of other names, in a list or alone, are none of its concern.
    for mark in ("pytest.mark.skip", "[pytest.mark.skip]"):
        other = source.format(marks=f"pytestmark = {mark}", made="test_made = Softmax(1)", marker="")
        assert run(other.replace("(case)", "()")).parseoutcomes() == {"failed": 1}


def test_a_system_of_ones_own_is_one_too(run):
    pytest.importorskip("torch")
    page = (ROOT / "derivations/your_own_system.md").read_text(encoding="utf-8")
    lines = re.findall(r"^(?:>>>|\.\.\.) ?(.*)$", page.partition(">>> module = RMSNorm(")[0], re.MULTILINE)
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (example,) = [block for block in blocks if "pytest.mark.golden" in block]
    code = "\n".join([*lines, example])
    assert len([line for line in code.splitlines() if line.strip()]) < 60
    run(code, "-k", "ties or zeros").assert_outcomes(passed=6, deselected=63)
    wrong = code.replace("w.shape, w,", "w.shape, 1.02 * w,")
    run(wrong, "-k", "float32 and ties").assert_outcomes(failed=1, deselected=68)
