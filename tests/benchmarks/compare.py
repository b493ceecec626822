"""Time and memory of every system beside the same system in PyTorch, forward and backward.

All run in turns in one process, so that whatever else the machine does falls on all; what counts is the ratio of the
medians. PyTorch runs eagerly, compiled by `torch.compile` where that works, and in its fused form where there is one.
Before each system the machine's rates are measured, of matrix products and of memory, and of each system stands what
share it reaches of the one that bounds it (`work` counts what the mathematics needs). Peak memory is that of a fresh
process for each, beyond its inputs and parameters. npattn has the C library keep more freed memory than it does by
itself; in PyTorch's turns it keeps what it does in a process without npattn.

    python tests/benchmarks/compare.py
    python tests/benchmarks/compare.py se eca --dtype float64 --repeats 30

and the same as a picture, ratios as bars and each system under the machine's roof (needs the extra plot):

    python tests/benchmarks/compare.py --plot table.png

`--markdown` prints below it the table that stands in the README.

What a machine without AVX-512 would show, on one that has it (PyTorch's compiled forms, which end the process
there, are left out):

    python tests/benchmarks/compare.py --avx2

How position attention's time and memory grow with the number of positions, and a picture of that, with lines that grow
as N and as N² for comparison:

    python tests/benchmarks/compare.py --scaling
    python tests/benchmarks/compare.py --scaling --plot scaling.png
"""

import argparse
import ctypes
import dataclasses
import functools
import importlib
import importlib.util
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import npattn
from npattn.fast.machine import MAX_FREED_MEMORY, TRIM_THRESHOLD
from npattn.module import as_tuple

SHAPE = 8, 256, 56, 56
SHAPES = {
    "pam": (1, 512, 64, 64),
    "criss-cross": (1, 512, 64, 64),
    "cam": (1, 512, 64, 64),
    "danet": (1, 512, 48, 48),
    "non-local": (1, 512, 64, 64),
    "mhsa": (1, 256, 48, 48),
    "window": (8, 96, 56, 56),
    "lambda": (8, 256, 16, 16),
    "sdpa": (1, 64, 2048, 2048),
    "bottleneck": (8, 512, 14, 14),
    "halo": (8, 256, 32, 32),
    "multi-scale": (2, 512, 33, 33),
    "sk": (8, 256, 28, 28),
    "split": (8, 256, 28, 28),
    "hard": (8, 512, 14, 14),
    "soft-hard": (8, 512, 14, 14),
    "pcm": (1, 192, 48, 48),
}
"""Shapes of the inputs of systems that are used on others than `SHAPE`: by key."""
SCALING = [(1, 64, side, side) for side in (32, 64, 96, 128)]
"""Inputs of `pam` of which --scaling prints time and memory."""
OPTIONS = {"window": 14, "stride": 7, "classes": 21, "heads": 8, "training": True, "embedding": 192}
"""Fields in which the benchmarked module differs from the example, where it has them: a realistic training step."""
OWN_OPTIONS = {
    "attention-gate": {"gating_channels": None, "stride": 1},
    "external": {"memory": 64},
    "double": {"hidden": 64, "maps": 64},
    "linear": {"key_channels": 64, "value_channels": 64},
    "ge": {"extra_params": False, "extent": 2},
    "non-local": {"hidden": None, "reduction": 4},
    "bottleneck": {"heads": 4, "head_dim": None, "stride": 1},
    "halo": {"head_dim": None, "block_size": 8, "halo_size": 3, "stride": 1},
    "multi-scale": {"out_channels": 256, "rates": (12, 24, 36)},
    "soft-hard": {"k": 16},
    "sk": {"stride": 1},
    "split": {"stride": 1, "hidden": None},
    "window": {"window": 7, "shift": 3},
    "lambda": {"key_channels": 16, "kernel_size": 9, "stride": 1},
    "sdpa": {"window": None, "sink": False},
}
"""Such fields of single systems: by key."""


def make_module(key, shape=None):
    _, channels, *size = shape or shape_of(key)
    return enlarged(npattn.CATALOGUE[key].example().for_size(*size), channels)


def enlarged(module, channels):
    """Give a module its number of channels, and the options; a residual connection gives them to what it wraps."""
    fields = {field.name for field in dataclasses.fields(module)}
    if "inner" in fields:
        return dataclasses.replace(module, inner=enlarged(module.inner, channels))
    options = {name: value for name, value in OPTIONS.items() if name in fields} | OWN_OPTIONS.get(module.key, {})
    name = next(name for name in ("in_channels", "channels", "head_dim") if name in fields)
    return dataclasses.replace(module, **{name: channels}, **options)


def shape_of(key):
    return SHAPES.get(key, SHAPE)


def make_values(module, shape=None, dtype="float32"):
    batch, _, height, width = shape or shape_of(module.key)
    params, inputs = npattn.oracle.generic_values(module, batch=batch, height=height, width=width, dtype=dtype)
    if "maps" in inputs:  # of which there may be any number: 21 classes
        inputs["maps"] = np.tile(inputs["maps"], (1, 7, 1, 1))
    return params, inputs


def numpy_passes(key, shape=None, dtype="float32"):
    """Return forward and backward as functions without arguments."""
    module = make_module(key, shape)
    params, inputs = make_values(module, shape, dtype)
    state = {}

    def forward():
        state.clear()
        state["run"] = module(params, *inputs.values())

    def backward():
        state["run"].backward(dy)

    forward()
    dy = state["run"].output
    state.clear()
    return forward, backward


def torch_passes(key, shape=None, dtype="float32", form=None, wrap=None):
    """Return the same for the PyTorch module that the tests compare with, wrapped if need be."""
    import torch

    module = make_module(key, shape)
    tests = tests_of(key)
    reference = getattr(tests, form or "fast", tests.published)(module).to(getattr(torch, dtype))
    params, inputs = make_values(module, shape, dtype)
    initial = reference.state_dict()
    reference.load_state_dict({name: torch.as_tensor(params.get(name, initial[name])) for name in initial})
    reference.train(getattr(module, "training", False))
    function = wrap(reference) if wrap else reference
    state = {}
    leaves = [torch.tensor(x, requires_grad=True) for x in inputs.values()]

    def forward():
        state.clear()
        state["output"] = as_tuple(function(*leaves))

    def backward():
        for tensor in [*leaves, *reference.parameters()]:
            tensor.grad = None
        torch.autograd.backward(state["output"], dy)

    forward()
    dy = [y.detach().clone() for y in state["output"]]
    state.clear()
    return forward, backward


def compiled_passes(key, shape=None, dtype="float32"):
    """Return the same, compiled; whatever the compiler raises is passed on."""
    import torch

    torch._dynamo.reset()  # what it has learnt of other systems' shapes is of no use to this one
    forward, backward = torch_passes(key, shape, dtype, wrap=torch.compile)
    forward()
    backward()
    return forward, backward


def tests_of(key):
    """Return the tests of a system, where its PyTorch forms stand."""
    name = npattn.CATALOGUE[key].__module__.rpartition(".")[2]
    return importlib.import_module(f"tests.attention.test_{name}")


IMPLEMENTATIONS = {
    "npattn": numpy_passes,
    "pytorch": torch_passes,
    "compiled": compiled_passes,
    "fused": functools.partial(torch_passes, form="fused"),
}
FORMS = {"pytorch": "eager", "compiled": "compiled", "fused": "fused"}
"""Forms of PyTorch by the names that the table has for them."""
MISCOMPILED = {"halo"}
"""Systems whose compiled form is not run: with PyTorch 2.13.0 and AVX2 it writes beyond its memory, and sooner or later
glibc ends the process, at once with its `libc_malloc_debug` and `MALLOC_CHECK_=3`."""
WAYS = "forward", "backward", "both"
FREED_BY_ITSELF = 2**26
"""Bytes of freed memory that glibc keeps by itself where large arrays are freed: twice its largest M_MMAP_THRESHOLD."""


def medians(passes, repeats):
    """Time several implementations in turns: median seconds of forward, backward and both.

    Before it is timed each runs once: the one before leaves threads that still wait for work on all cores, and memory
    that is kept, or is not.
    """
    times = {name: [] for name in passes}
    for _ in range(repeats):
        for name, (forward, backward) in passes.items():
            keep_freed_memory_as(name)
            forward()
            backward()
            start = time.perf_counter()
            forward()
            middle = time.perf_counter()
            backward()
            end = time.perf_counter()
            times[name].append((middle - start, end - middle, end - start))
    return {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in times.items()}


def keep_freed_memory_as(name):
    """Have the C library keep as much freed memory as it does where one implementation has a process of its own."""
    set_option = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if set_option is not None and "MALLOC_TRIM_THRESHOLD_" not in os.environ:
        set_option(TRIM_THRESHOLD, MAX_FREED_MEMORY if name == "npattn" else FREED_BY_ITSELF)


def peak_megabytes(key, name, shape=None, dtype="float32"):
    """Measure in a fresh process by how much a forward and backward pass raise the peak of resident memory."""
    command = [sys.executable, __file__, key, "--peak", name, "--dtype", dtype, "--shape"]
    command += map(str, shape or shape_of(key))
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def print_peak(key, name, shape, dtype):
    """Print that figure for this process."""
    forward, backward = IMPLEMENTATIONS[name](key, shape, dtype)
    ctypes.CDLL(None).malloc_trim(0)  # what was freed and kept is to count when it is used again
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = resident("VmRSS")
    forward()
    backward()
    print((resident("VmHWM") - before) / 1024)


def resident(field):
    """Read resident memory from the kernel, in kB: VmRSS is the present, VmHWM the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(field)))


@dataclasses.dataclass(frozen=True)
class Row:
    """What was found of one system in one way: "forward", "backward" or "both".

    `flops` and `bytes` are those that the mathematics needs, `share` is what the larger of the two times that they
    need on this machine is of the time it took, `ratios` that time over PyTorch's, by form, `memory` the peak in MB
    and its ratio to PyTorch's eager form.
    """

    key: str
    way: str
    dtype: str
    seconds: float
    flops: float
    bytes: float
    share: float
    bound: str
    ratios: dict
    memory: tuple = ()


def time_system(key, dtype, names, machine, repeats):
    """Time one system in turns with PyTorch's forms of it: its rows, and the machine's rates."""
    from tests.benchmarks.work import PRODUCTS, count_work

    passes = {name: IMPLEMENTATIONS[name](key, dtype=dtype) for name in names}
    rates = machine.rates(repeats)
    found = medians(passes, repeats)
    peaks = {name: peak_megabytes(key, name, dtype=dtype) for name in names if name in ("npattn", "pytorch")}
    work = count_work(make_module(key), shape_of(key))
    work.append(tuple(map(sum, zip(*work, strict=True))))
    rows = []
    for i, way in enumerate(WAYS):
        flops, moved = work[i][0], work[i][1] * np.dtype(dtype).itemsize
        least = {"memory": moved / rates[1]} | ({"products": flops / rates[0]} if key in PRODUCTS else {})
        bound = max(least, key=least.get)
        seconds = found["npattn"][i]
        ratios = {name: seconds / found[name][i] for name in names[1:]}
        memory = (peaks["npattn"], *(peaks["npattn"] / peaks[name] for name in peaks if name != "npattn"))
        share = least[bound] / seconds
        rows.append(Row(key, way, dtype, seconds, flops, moved, share, bound, ratios, memory if way == "both" else ()))
    return rows, rates


def print_table(keys, dtype, repeats):
    """Print the table, a system as soon as it is timed, and return its rows and the machine's rates."""
    from tests.benchmarks.machine import Machine, is_limited_to_avx2

    limited = is_limited_to_avx2()
    processor = platform.machine() + (", no wider than AVX2" if limited else "")
    print(f"{processor}, {os.cpu_count()} cores, NumPy {np.__version__}, {dtype}")
    names = ["npattn"]
    if importlib.util.find_spec("torch"):
        import torch

        print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads")
        names += ["pytorch", *(["compiled"] if not limited and can_compile() else [])]
    headings = "time", "share of bound", *FORMS.values(), "peak MB", "eager"
    print(f"{'':<10}" + aligned(headings))
    machine, rows, rates = Machine(dtype), [], []
    for key in keys:
        forms = [name for name in names if name != "compiled" or key not in MISCOMPILED]
        forms += ["fused"] * (len(names) > 1 and hasattr(tests_of(key), "fused"))
        print(f"{key} {shape_of(key)}")
        found, rate = time_system(key, dtype, forms, machine, repeats)
        rows += found
        rates.append(rate)
        for row in found:
            cells = [f"{1e3 * row.seconds:.1f} ms", f"{100 * row.share:.0f} % {row.bound:<8}"]
            cells += [f"{row.ratios[name]:.2f}" if name in row.ratios else "" for name in FORMS]
            cells += [f"{value:.{2 * i}f}" for i, value in enumerate(row.memory)]
            print(f"  {row.way:<8}{aligned(cells)}".rstrip(), flush=True)
    both = [row for row in rows if row.way == "both"]
    means = [mean([row.ratios[name] for row in both if name in row.ratios]) for name in FORMS]
    means += ["", mean([row.memory[1] for row in both if len(row.memory) > 1])]
    print(f"{'geometric mean':<10}{aligned(['', '', *means])[4:]}".rstrip())
    flop_rate, byte_rate = (statistics.median(column) for column in zip(*rates, strict=True))
    print(f"the machine meanwhile: products {flop_rate / 1e9:.0f} Gflop/s, memory {byte_rate / 1e9:.1f} GB/s")
    return rows, (flop_rate, byte_rate)


def print_markdown(rows):
    """Print the passes forward and backward as the README's table has them."""
    both = [row for row in rows if row.way == "both"]
    headings = "system", "input", "share of bound", *FORMS.values(), "memory"
    lines = [headings]
    for row in both:
        shape = "×".join(map(str, shape_of(row.key)))
        ratios = [f"{row.ratios[name]:.2f}" if name in row.ratios else "" for name in FORMS]
        memory = [f"{value:.2f}" for value in row.memory[1:]] or [""]
        lines.append([row.key, shape, f"{100 * row.share:.0f} % {row.bound}", *ratios, *memory])
    means = [mean([row.ratios[name] for row in both if name in row.ratios]) for name in ("pytorch", "compiled")]
    lines.append(["geometric mean", "", "", *means, "", mean([row.memory[1] for row in both if len(row.memory) > 1])])
    first, *others = (f"| {' | '.join(cells)} |" for cells in lines)
    print("", first, "|---" * len(headings) + "|", *others, sep="\n")


def aligned(cells):
    """Lay the cells of a row in columns."""
    widths = 12, 16, 8, 10, 8, 9, 7
    return "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=False))


def mean(ratios):
    """Print the geometric mean of ratios, and nothing of none."""
    return f"{math.exp(statistics.fmean(map(math.log, ratios))):.2f}" if ratios else ""


def can_compile():
    """Tell whether torch.compile works here: it needs a C++ compiler. If not, a line says so."""
    import torch

    try:
        torch.compile(torch.sin)(torch.zeros(3))
    except Exception as error:  # of many kinds, from a missing compiler to an unknown processor
        print(f"torch.compile does not work here: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
        return False
    return True


def print_scaling(repeats):
    """Print how position attention's time and memory grow with the number of positions, and return the numbers.

    A row holds the positions, the seconds of forward, backward and both, and the megabytes at the peak.
    """
    print(f"{platform.machine()}, {os.cpu_count()} cores, NumPy {np.__version__}, float32, {SCALING[0][1]} channels")
    torch = importlib.util.find_spec("torch") is not None
    headings = "forward", "backward", "both", "peak MB", "N x N MB", *(["pytorch MB"] if torch else [])
    print(f"{'positions':>10}" + "".join(f"{heading:>12}" for heading in headings))
    rows = []
    for shape in SCALING:
        found = medians({"npattn": numpy_passes("pam", shape)}, repeats)["npattn"]
        rows.append((shape[2] * shape[3], *found, peak_megabytes("pam", "npattn", shape)))
        positions, *seconds, peak = rows[-1]
        cells = [f"{1e3 * second:.1f} ms" for second in seconds]
        cells += [f"{peak:.0f}", f"{4 * positions**2 / 2**20:.0f}"]
        if torch:
            cells.append(f"{peak_megabytes('pam', 'pytorch', shape):.0f}")
        print(f"{positions:>10}" + "".join(f"{cell:>12}" for cell in cells), flush=True)
    return rows


def main(argv=None):
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("keys", nargs="*", metavar="KEY", help="systems (default: all)")
    parser.add_argument("--repeats", type=int, default=15, help="passes of each, in turns (default: 15)")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32", help="default: float32")
    parser.add_argument("--avx2", action="store_true", help="let no library use wider vectors than AVX2's")
    parser.add_argument("--scaling", action="store_true", help="print how pam's time and memory grow, and nothing else")
    parser.add_argument("--markdown", action="store_true", help="also print the table as it stands in the README")
    parser.add_argument("--plot", metavar="FILE", help="also draw what is printed, as .png, .pdf or .svg")
    parser.add_argument("--peak", choices=IMPLEMENTATIONS, help=argparse.SUPPRESS)
    parser.add_argument("--shape", type=int, nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    for key in arguments.keys:
        if key not in npattn.CATALOGUE:
            parser.error(f"unknown system {key!r}; there are {', '.join(npattn.CATALOGUE)}")
    if arguments.plot and not importlib.util.find_spec("matplotlib"):
        parser.exit(2, f"{parser.prog}: --plot needs matplotlib: pip install 'npattn[plot]'\n")
    sys.path.insert(0, str(Path(__file__).parents[2]))  # the PyTorch forms stand in the tests
    if arguments.avx2:
        from tests.benchmarks.machine import limit_to_avx2

        limit_to_avx2()
    if arguments.peak:
        print_peak(arguments.keys[0], arguments.peak, tuple(arguments.shape), arguments.dtype)
        return
    if arguments.scaling:
        rows = print_scaling(arguments.repeats)
    else:
        rows, rates = print_table(arguments.keys or npattn.CATALOGUE, arguments.dtype, arguments.repeats)
        if arguments.markdown:
            print_markdown(rows)
    if arguments.plot:
        from tests.benchmarks.drawing import draw_scaling, draw_table

        if arguments.scaling:
            draw_scaling(rows, SCALING[0][1], arguments.plot)
        else:
            draw_table(rows, rates, arguments.plot)
        print(arguments.plot)


if __name__ == "__main__":
    main()
