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
importlib.import_module("npattn.oracle.cases")
with contextlib.suppress(ImportError):
    importlib.import_module("torch")
ROOT = Path(__file__).parents[2]
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
    monkeypatch.setattr(sys.modules["npattn.oracle.cases"], "golden", lambda *_, **__: pytest.fail("made"))
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
    assert "golden.py" not in text
    assert "comparison.py" not in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("'ecs'", "golden('ecs'): cases: system='ecs'; did you mean 'eca'?"),
        ("", "golden() names no system; expected some, such as golden('eca')"),
        ("'eca', formats=['fp8']", "dtype='fp8'; did you mean 'float8_e4m3' or 'float8_e5m2'?"),
        ("'eca', format=['float16']", "option='format'; did you mean 'formats'?"),
        ("'eca', kinds=['size']", "kinds holds an unknown 'size'; did you mean 'sizes'?"),
        ("'eca', limit=0", "limit=0; expected an integer of at least 1"),
    ],
)
def test_a_bad_marker_is_a_usage_error_of_one_line(run, arguments, words):
    result = run(marked(arguments))
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.assert_outcomes(errors=1)
    text = result.stdout.str()
    line = next(line for line in text.splitlines() if words in line)
    assert line.startswith("test_a_bad_marker_is_a_usage_error_of_one_line.py::test_kernel: ")
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


def test_the_readmes_example_runs(run):
    pytest.importorskip("torch")
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (example,) = [block for block in blocks if "pytest.mark.golden" in block]
    run(example, "-k", "1x65 or ties").assert_outcomes(passed=6, deselected=54)
    wrong = example.replace("x * gate", "x + gate")
    result = run(wrong, "-k", "bfloat16-1x65")
    result.assert_outcomes(failed=1, deselected=59)


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


def test_a_system_of_ones_own_is_one_too(run):
    pytest.importorskip("torch")
    page = (ROOT / "derivations/your_own_system.md").read_text(encoding="utf-8")
    lines = re.findall(r"^(?:>>>|\.\.\.) ?(.*)$", page.partition(">>> module = RMSNorm(")[0], re.MULTILINE)
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (example,) = [block for block in blocks if "pytest.mark.golden" in block]
    code = "\n".join([*lines, example])
    assert len([line for line in code.splitlines() if line.strip()]) < 60
    run(code, "-k", "ties or zeros").assert_outcomes(passed=6, deselected=45)
    wrong = code.replace("w.shape, w,", "w.shape, 1.02 * w,")
    run(wrong, "-k", "float32 and ties").assert_outcomes(failed=1, deselected=50)
