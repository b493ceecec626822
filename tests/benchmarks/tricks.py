"""What every faster way and every trick brings: each system's time without it over its time with it.

A way is put aside by taking it out of its primitive's list, so that the next one, or the definition, is computed. The
two times of a ratio are medians of passes forward and backward in float32, in turns in one process, each after a run
that is not timed. Two tricks hold for a whole process, which is started with and without them, in turns. A ratio of
1.03 means that the pass would take 3 % longer without: what brings less than that to every system should go.

    python tests/benchmarks/tricks.py
    python tests/benchmarks/tricks.py cbam danet --repeats 9

With ``--thresholds`` every threshold, from which or up to which something is done, is set to half of what it is and to
twice that: a ratio below 1 means that there the pass is quicker.

    python tests/benchmarks/tricks.py --thresholds cbam danet
"""

import argparse
import contextlib
import functools
import importlib
import pkgutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

import npattn
import npattn.fast
from npattn.fast import blocks, joining, machine, threads
from npattn.ops.primitive import PRIMITIVES
from tests.benchmarks import compare

FAST = [importlib.import_module(f"npattn.fast.{info.name}") for info in pkgutil.iter_modules(npattn.fast.__path__)]
WORTH = 1.03
"""The ratio that a trick should reach in some system."""
ANYWHERE = (
    *("threads", "powers of 2", "memory used again by blocks", "small maps on one thread"),
    *("operands not laid out", "copies by products", "all ways"),
)
"""Tricks that are no way of a primitive's own, by name."""
FACTS = "MAX_SERIAL_VECTOR_PRODUCT", "MAX_SERIAL_PRODUCT", "MAX_SMALL_BATCH", "MAX_LOGIT", "MAX_FREED_MEMORY"
"""Bounds that are no choice: of what a library does, of what an exponential holds, of a process's memory."""
PROCESS = {"helpers off the caller's core": "AVOID_CALLERS_CORE", "freed memory kept": "KEEP_FREED_MEMORY"}
"""Tricks of a whole process, and their switches in `npattn.fast.machine`."""


def tricks():
    """List what can be put aside in one process: names, and contexts that do so."""
    found = {"threads": lambda: mock.patch.object(threads, "num_threads", lambda: 1)}
    for primitive in PRIMITIVES:
        for way in primitive.ways:
            found[way.compute.__name__] = lambda primitive=primitive, way=way: without(primitive, way)
    found["powers of 2"] = lambda: mock.patch.object(machine, "has_quick_powers_of_two", lambda: False)
    found["memory used again by blocks"] = lambda: mock.patch.object(threads.ReusedMemory, "__call__", fresh)
    found["small maps on one thread"] = lambda: mock.patch.object(blocks, "MIN_THREADED_SIZE", 1)
    found["operands not laid out"] = lambda: mock.patch.object(threads, "BUFFER_SIZE", np.getbufsize())
    found["copies by products"] = lambda: mock.patch.object(joining, "copy_block", np.copyto)
    return found | {"all ways": npattn.definitions}


def thresholds():
    """List every threshold at half of its value and at twice that: names, and contexts in which it is so."""
    found = {}
    for module in FAST:
        for name, value in vars(module).items():
            if name.startswith(("MIN_", "MAX_")) and name not in FACTS:
                for word, other in (("half", value / 2), ("twice", value * 2)):
                    found[f"{name} {word}"] = functools.partial(with_threshold, name, type(value)(other))
    return found


@contextlib.contextmanager
def with_threshold(name, value):
    """Set a threshold in every module of faster ways that knows it."""
    with contextlib.ExitStack() as stack:
        for module in FAST:
            if hasattr(module, name):
                stack.enter_context(mock.patch.object(module, name, value))
        yield


def fresh(memory, shape):
    """Return an array of its own, as a memory would that keeps none."""
    return np.empty_like(memory.numbers, shape=shape)


@contextlib.contextmanager
def without(primitive, way):
    """Take a way out of its primitive's list, and put it back where it was."""
    place = primitive.ways.index(way)
    primitive.ways.remove(way)
    try:
        yield
    finally:
        primitive.ways.insert(place, way)


def time_pass(key):
    """Return a function that times a pass forward and backward of a system, after one that it doesn't time."""
    forward, backward = compare.numpy_passes(key)

    def seconds():
        forward()
        backward()
        start = time.perf_counter()
        forward()
        backward()
        return time.perf_counter() - start

    return seconds


def ratio_without(seconds, trick, repeats):
    """Time a pass with and without a trick, in turns."""
    times = {True: [], False: []}
    for turn in range(repeats):
        for used in (True, False) if turn % 2 else (False, True):
            with contextlib.nullcontext() if used else trick():
                times[used].append(seconds())
    return statistics.median(times[False]) / statistics.median(times[True])


def ways_taken(key):
    """Name the ways that a pass of a system takes: the others need not be put aside."""
    taken = set()
    with contextlib.ExitStack() as stack:
        for primitive in PRIMITIVES:
            for place, way in enumerate(primitive.ways):
                watched = type(way)(noting(way, taken), way.suits)
                primitive.ways[place] = watched
                stack.callback(primitive.ways.__setitem__, place, way)
        forward, backward = compare.numpy_passes(key)
        forward()
        backward()
    return taken


def noting(way, taken):
    """Compute as a way does, and note its name."""

    def compute(*arguments, **options):
        taken.add(way.compute.__name__)
        return way.compute(*arguments, **options)

    return compute


def ratio_of_processes(key, switch, repeats):
    """Time a pass in processes of their own with and without a trick, in turns."""
    times = {True: [], False: []}
    for turn in range(repeats):
        for used in (True, False) if turn % 2 else (False, True):
            command = [sys.executable, __file__, key, "--switch", f"{switch}={used}"]
            times[used].append(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    return statistics.median(times[False]) / statistics.median(times[True])


def print_table(keys, repeats):
    """Print, for every system, what each trick that it takes brings; then the most that each brings."""
    most = {}
    for key in keys:
        seconds, taken = time_pass(key), ways_taken(key)
        found = {
            name: ratio_without(seconds, trick, repeats)
            for name, trick in tricks().items()
            if name in taken or name in ANYWHERE
        }
        found |= {name: ratio_of_processes(key, switch, max(3, repeats // 2)) for name, switch in PROCESS.items()}
        print(f"{key}: " + ", ".join(f"{name} {ratio:.2f}" for name, ratio in found.items()), flush=True)
        for name, ratio in found.items():
            most[name] = max(most.get(name, (0.0, "")), (ratio, key))
    print("\nthe most that each brings:")
    for name, (ratio, key) in sorted(most.items(), key=lambda item: -item[1][0]):
        print(f"{name:<32} {ratio:5.2f}  {key}{'' if ratio >= WORTH else '  LITTLE'}")
    for name in tricks():
        if name not in most:
            print(f"{name:<32}     -  taken by none of these systems")


def print_thresholds(keys, repeats):
    """Print, for every system, the ratio with each threshold at half and at twice; then the lowest of each."""
    lowest = {}
    for key in keys:
        seconds = time_pass(key)
        found = {name: ratio_without(seconds, other, repeats) for name, other in thresholds().items()}
        print(f"{key}: " + ", ".join(f"{name} {ratio:.2f}" for name, ratio in found.items()), flush=True)
        for name, ratio in found.items():
            lowest[name] = min(lowest.get(name, (np.inf, "")), (ratio, key))
    print("\nthe lowest ratio of each:")
    for name, (ratio, key) in sorted(lowest.items(), key=lambda item: item[1][0]):
        print(f"{name:<32} {ratio:5.2f}  {key}{'  QUICKER' if ratio <= 1 / WORTH else ''}")


def main(argv=None):
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("keys", nargs="*", metavar="SYSTEM", help="default: all")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each trick (default: 5)")
    parser.add_argument("--thresholds", action="store_true", help="change thresholds, instead of putting tricks aside")
    parser.add_argument("--switch", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.switch:
        name, _, used = options.switch.partition("=")
        setattr(machine, name, used == "True")
        seconds = time_pass(options.keys[0])
        print(statistics.median(seconds() for _ in range(5)))
        return
    table = print_thresholds if options.thresholds else print_table
    table(options.keys or list(npattn.CATALOGUE), options.repeats)


if __name__ == "__main__":
    main()
