"""Faster ways may be left out: nothing but rounding changes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import npattn
from npattn.ops.context import replacing
from npattn.ops.primitive import PRIMITIVES
from tests.fast.examples import run_all
from tests.ops.primitives import way_taken

PROGRAM = """
import sys
import numpy as np
from tests.fast.examples import run_all
assert ("npattn.fast" in sys.modules) is (sys.argv[2] == "beside")
np.savez(sys.argv[1], **run_all())
"""


@pytest.fixture(scope="module")
def expected():
    """What is computed here, with faster ways, and which of them were taken."""
    taken = set()

    def watch(primitive, arguments, options):
        taken.add(way_taken(primitive, *arguments, **options))
        return NotImplemented

    with replacing(watch):
        return run_all(), taken


def run_elsewhere(tmp_path, root, *, fast, **environment):
    """Run all in a process of its own, in which an editable installation can't lend the folder that is left out."""
    paths = [str(root), str(Path(__file__).parents[2]), *filter(None, sys.path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | environment
    target = tmp_path / "found.npz"
    subprocess.run([sys.executable, "-S", "-c", PROGRAM, target, fast], env=environment, cwd=tmp_path, check=True)
    with np.load(target) as found:
        return dict(found)


def assert_same_but_for_rounding(found, expected):
    assert set(found) == set(expected)
    largest = {}  # in a system: a gradient that is 0 by its nature is what rounding leaves of the others
    for name, value in expected.items():
        key = name.split()[0]
        largest[key] = max(largest.get(key, 0), np.abs(value).max())
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-11 * largest[name.split()[0]], err_msg=name)


def test_the_examples_take_faster_ways(expected):
    _, taken = expected
    ways = {way.compute.__name__ for primitive in PRIMITIVES for way in primitive.ways}
    assert len(taken & ways) >= len(ways) / 2, ways - taken


def test_without_the_folder_nothing_but_rounding_changes(tmp_path, expected):
    there = Path(npattn.__file__).parent
    shutil.copytree(there, tmp_path / "npattn", ignore=shutil.ignore_patterns("fast", "__pycache__"))
    assert not (tmp_path / "npattn/fast").exists()
    assert_same_but_for_rounding(run_elsewhere(tmp_path, tmp_path, fast="gone"), expected[0])


def test_without_the_folder_the_command_checks(tmp_path):
    there = Path(npattn.__file__).parent
    shutil.copytree(there, tmp_path / "npattn", ignore=shutil.ignore_patterns("fast", "__pycache__"))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    command = [sys.executable, "-S", "-m", "npattn", "check", "eca"]
    done = subprocess.run(command, check=False, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_process_that_is_told_to_follows_definitions_alone(tmp_path, expected):
    found = run_elsewhere(tmp_path, Path(npattn.__file__).parents[1], fast="beside", NPATTN_DEFINITIONS="1")
    assert_same_but_for_rounding(found, expected[0])
