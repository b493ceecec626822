import os
import platform
import subprocess
import sys

import pytest

from npattn.fast import machine

linux = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system does not bind threads to cores")


@linux
def test_the_system_tells_on_which_core_a_thread_runs():
    if machine.current_core() is None:
        pytest.skip("the system does not tell")
    allowed = os.sched_getaffinity(0)
    try:
        for core in allowed:
            os.sched_setaffinity(0, {core})
            assert machine.current_core()() == core
            assert machine.other_cores() == set()
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize("core", [0, 2, 5])
def test_helpers_may_run_on_all_cores_but_the_callers(core, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 5}, raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None, raising=False)
    monkeypatch.setattr(machine, "current_core", lambda: lambda: core)
    assert machine.other_cores() == {0, 2, 5} - {core}
    monkeypatch.setattr(machine, "AVOID_CALLERS_CORE", False)
    assert machine.other_cores() == set()
    monkeypatch.setattr(machine, "AVOID_CALLERS_CORE", True)
    monkeypatch.setattr(machine, "current_core", lambda: None)
    assert machine.other_cores() == set()


MEMORY = """
import resource, sys, numpy as np
from npattn.fast import machine, threads
how, times, count = sys.argv[1], *map(int, sys.argv[2:])
machine.KEEP_FREED_MEMORY = how != "return"
threads.parallel_for(lambda block: None, range(2))

def fresh():
    for _ in range(times):
        arrays = [np.ones(2**20, np.float32) for _ in range(count)]
        del arrays

fresh()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
fresh()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def count_new_pages(how, times=20, count=5, *, limits=False):
    # What others set for the C library in the environment, as Dask does, decides by itself what is kept.
    environment = {name: value for name, value in os.environ.items() if limits or not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", MEMORY, how, str(times), str(count)]
    return int(subprocess.run(command, check=True, capture_output=True, timeout=300, env=environment).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have ways of their own")
def test_memory_of_freed_arrays_is_kept_for_the_next_ones():
    assert 10 * count_new_pages("keep") < count_new_pages("return")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have ways of their own")
def test_so_is_all_that_a_pass_over_maps_of_usual_size_frees():
    assert 10 * count_new_pages("keep", 2, 100) < count_new_pages("return", 2, 100)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have ways of their own")
def test_a_limit_that_users_set_holds(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", str(2**20))
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", str(2**25))
    assert 2 * count_new_pages("keep", 5, limits=True) > count_new_pages("return", 5, limits=True)
