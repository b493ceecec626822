"""Settings of all tests."""

import functools
import gc
import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

import npattn.data
import npattn.oracle
from npattn.ops.context import CONTEXT
from npattn.oracle.budgets import Budget

# The arrays are small: threads of OpenMP, which PyTorch works with, would wait for each other most of the time. Where a
# test asks for several, they sleep meanwhile.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Timings vary between machines, so no example is judged by its; in CI every run draws the same examples.
settings.register_profile("default", deadline=None, max_examples=50)
settings.register_profile("ci", settings.get_profile("default"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture(scope="session", autouse=True)
def photograph_is_filtered_once():
    """Keep what pictures are drawn from: many show maps of the same sizes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(npattn.data, "sampled_derivatives", functools.lru_cache(64)(npattn.data.sampled_derivatives))
        yield


@pytest.fixture(scope="session", autouse=True)
def searches_have_time():
    """Let a case's diagnosis end when all is tried, however loaded the machine is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("npattn.oracle.case.SECONDS", 600.0)
        yield


@pytest.fixture(autouse=True)
def nobody_is_left_to_answer_for_primitives():
    """See that a test leaves what held before it, or others would fail by it."""
    held = CONTEXT.get()
    yield
    assert CONTEXT.get() is held


@pytest.fixture
def without_budgets(monkeypatch):
    """Let budgets, which take most of the time to make, be 1 where they are not the matter."""

    def unit(observed, *_, **__):
        return {name: Budget(np.ones(y.shape), 1.0) for name, y in observed.expected.items()}

    monkeypatch.setattr("npattn.oracle.measurement.measure_budgets", unit)


def pytest_configure(config):
    """Leave out the examples of what can't be imported without its extra; anything else has to be imported."""
    for library, folder in (("matplotlib", "pictures"), ("latex2mathml", "tracing/web")):
        if importlib.util.find_spec(library) is None:
            left_out = Path(__file__).parents[1] / "npattn" / folder
            config.option.ignore = [*(config.option.ignore or []), str(left_out)]


def pytest_ignore_collect(collection_path):
    """Leave the tests' helpers to the tests: one that skips, for want of a library, would stay behind half-imported."""
    return True if collection_path.suffix == ".py" and not collection_path.name.startswith("test_") else None


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Look for garbage rarely, and not at all in what is collected, libraries too: it stays, and is much."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(20_000)
        gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Give each process tests that stand together, so that what several of them look at is made once."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log) if config.option.dist == "load" else None


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder that the test runs in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
