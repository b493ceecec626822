"""Time what a test waits for when it asks for a golden case, and what a user waits for: import and check.

    python tests/benchmarks/golden.py
    python tests/benchmarks/golden.py mhsa danet --formats bfloat16 --cores 1 2 16
    python tests/benchmarks/golden.py --large none
    python tests/benchmarks/golden.py --sweeps --over 1
    python tests/benchmarks/golden.py danet --sweeps --memory --cores 1

The first prints, by system and format, the seconds that one image of 64 channels and 32 × 32 positions takes, the share
of them that the certificate in longdouble takes, and the memory, as a multiple of what the case's own arrays take; then
the same of a few large cases, each of which may take minutes; then how long `import npattn` with its catalogue takes in
a fresh process that has imported NumPy and SciPy, and `npattn check`. Each case is made in a fresh process, on all
cores or on as many threads as are asked for, with and without its certificate for the time, and once more for the
memory. More threads than there are cores tell what memory such a machine would need, not how long it would take. With
--sweeps every case of every sweep is made, and those that take longer than so many seconds, two if nothing else is
said, are named, slowest first: seconds by the clock and of all cores together, of which the first are too many on a
busy machine, and the second on several threads, so that the lesser of both counts; with --memory also the memory.
"""

import argparse
import contextlib
import dataclasses
import itertools
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

from threadpoolctl import threadpool_limits

import npattn
from npattn import oracle
from npattn.oracle import threads
from npattn.oracle.cases import FORMATS_SWEPT
from npattn.oracle.recipes import make
from tests.memory import peak_memory

ROOT = Path(__file__).parents[2]
SHAPE = (1, 64, 32, 32)
LARGE = {"se": (2, 256, 56, 56), "pam": (1, 512, 64, 64), "sdpa": (1, 64, 1024, 1024)}
MEASURE = """
import json, os, sys
*case, cores = json.loads(sys.argv[1])
if cores and hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
from tests.benchmarks.golden import measure, on_threads
with on_threads(cores):
    print(json.dumps(measure(*case)))
"""
IMPORT = """
import time, numpy, scipy
start = time.perf_counter()
import npattn
npattn.CATALOGUE
print(time.perf_counter() - start)
"""


def widened(module, channels):
    """Give a module its number of channels; a residual connection gives it to what it wraps."""
    fields = {field.name for field in dataclasses.fields(module)}
    if "inner" in fields:
        return dataclasses.replace(module, inner=widened(module.inner, channels))
    name = next(name for name in ("in_channels", "channels", "head_dim") if name in fields)
    return dataclasses.replace(module, **{name: channels})


@contextlib.contextmanager
def on_threads(count):
    """Take so many threads, more than there are cores if need be; None for as many as there are."""
    if count is None:
        yield
        return
    with threadpool_limits(count, user_api="blas"), mock.patch.object(threads, "count_cores", lambda: count):
        yield


def measure(key, shape, dtype):
    """Make a golden case of a system at its usual settings.

    Returns its seconds, the share of the certificate, and the memory against its arrays'.
    """
    batch, channels, height, width = shape
    module = widened(npattn.CATALOGUE[key].example(), channels)
    small = {"batch": 1, "height": 4, "width": 4, "dtype": dtype}
    oracle.golden(module.for_size(4, 4), **small)  # what is done once in a process
    module, sizes = module.for_size(height, width), small | {"batch": batch, "height": height, "width": width}
    seconds, without = (time_making(module, certify=certify, **sizes) for certify in (True, False))
    made = []
    peak = peak_memory(lambda: made.append(oracle.golden(module, **sizes)))
    return seconds, max(0, 1 - without / seconds), peak / bytes_of(made[0])


def time_making(module, **options):
    """Return the seconds that a golden case takes."""
    start = time.perf_counter()
    oracle.golden(module, **options)
    return time.perf_counter() - start


def bytes_of(case):
    """Add up the bytes of a case's own arrays."""
    groups = case.inputs, case.params, case.upstream, case.expected, case.budget
    return sum(a.nbytes for group in groups for a in group.values())


def measure_apart(key, shape, dtype, cores):
    """Measure in a fresh process on so many cores; None for all."""
    command = [sys.executable, "-c", MEASURE, json.dumps([key, shape, dtype, cores])]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    return json.loads(done.stdout)


def print_row(name, key, shape, formats, cores):
    """Print a case's seconds, the certificate's share of them, and the memory in each format."""
    print(f"{name:<24}", end="", flush=True)
    for dtype in formats:
        seconds, share, memory = measure_apart(key, shape, dtype, cores)
        print(f"{seconds:>8.2f} s {share:>4.0%} {memory:>5.1f}×", end="", flush=True)
    print(flush=True)


def measure_recipe(recipe, memory):
    """Make a recipe's case: return its seconds by the clock and of all cores, and its memory if that is asked."""
    start = time.perf_counter(), time.process_time()
    case = make.__wrapped__(recipe)
    seconds = time.perf_counter() - start[0], time.process_time() - start[1]
    return *seconds, peak_memory(lambda: make.__wrapped__(recipe)) / max(1, bytes_of(case)) if memory else 0.0


def print_sweep(key, dtype, over, memory):
    """Print how long the cases of a sweep take, and name those that take too long, slowest first."""
    found = [(recipe.id, *measure_recipe(recipe, memory)) for recipe in oracle.cases(key, [dtype])]
    found.sort(key=lambda one: -min(one[1:3]))
    total, most = sum(wall for _, wall, *_ in found), min(found[0][1:3])
    print(f"{key:<22} {dtype:<9} {len(found):>3} cases {total:>7.1f} s, most {most:.2f} s")
    for name, wall, cores, multiple in found:
        if min(wall, cores) > over:
            print(f"  {name:<72} {wall:>6.2f} s {cores:>6.2f} s" + (f" {multiple:>5.1f}×" if memory else ""))
    sys.stdout.flush()


def time_import(repeats=5):
    """Return the median of the seconds that the import takes beyond NumPy's and SciPy's."""
    command = [sys.executable, "-c", IMPORT]
    return statistics.median(
        float(subprocess.run(command, check=True, capture_output=True, text=True).stdout) for _ in range(repeats)
    )


def time_check():
    """Return the seconds that the check of all systems takes, with its start."""
    start = time.perf_counter()
    command = [sys.executable, "-c", "import sys; from npattn.cli import main; sys.exit(main(['check']))"]
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def main(argv=None):
    """Print the times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("keys", nargs="*", metavar="KEY", help="systems (default: all)")
    parser.add_argument("--formats", nargs="+", default=FORMATS_SWEPT, choices=list(oracle.FORMATS))
    parser.add_argument("--cores", nargs="+", type=int, default=[None], metavar="N", help="default: all")
    parser.add_argument("--large", default="also", choices=["also", "only", "none"], help="the large cases")
    parser.add_argument("--sweeps", action="store_true", help="make every case of the systems' sweeps instead")
    parser.add_argument("--over", type=float, default=2.0, metavar="SECONDS", help="name cases that take longer")
    parser.add_argument("--memory", action="store_true", help="the memory of every case of a sweep too")
    arguments = parser.parse_args(argv)
    for key in arguments.keys:
        if key not in npattn.CATALOGUE:
            parser.error(f"unknown system {key!r}; there are {', '.join(npattn.CATALOGUE)}")
    keys = arguments.keys or list(npattn.CATALOGUE)
    if arguments.sweeps:
        for cores, key, dtype in itertools.product(arguments.cores, keys, arguments.formats):
            with on_threads(cores):
                print_sweep(key, dtype, arguments.over, arguments.memory)
        return
    rows = {key: (key, SHAPE) for key in keys if arguments.large != "only"}
    if arguments.large != "none":
        rows |= {f"{key} {'x'.join(map(str, shape))}": (key, shape) for key, shape in LARGE.items() if key in keys}
    for cores in arguments.cores:
        headings = "".join(f"{name:>22}" for name in arguments.formats)
        print(f"{f'on {cores} cores' if cores else '':<24}{headings}", flush=True)
        for name, (key, shape) in rows.items():
            print_row(name, key, shape, arguments.formats, cores)
    if not arguments.keys:
        print(f"import npattn {time_import():.3f} s, npattn check {time_check():.1f} s")


if __name__ == "__main__":
    main()
