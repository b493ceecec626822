"""Time and memory of every system beside the same system in PyTorch eager, forward and backward.

Both run in turns in one process, so that whatever else the machine does falls on both; what counts is the ratio of the
medians. Peak memory is that of a fresh process for each, beyond its inputs and parameters.

    python tests/benchmarks/compare.py
    python tests/benchmarks/compare.py se eca --repeats 30

Beside the published form stands, where there is one, PyTorch's fused form of it. How position attention's time and
memory grow with the number of positions:

    python tests/benchmarks/compare.py --scaling

and the same as a picture, with lines that grow as N and as N² for comparison (needs the extra plot):

    python tests/benchmarks/compare.py --scaling --plot scaling.png
"""

import argparse
import dataclasses
import functools
import importlib
import importlib.util
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import npattn
from npattn.module import as_tuple

SHAPE = 8, 256, 56, 56
SHAPES = {
    "pam": (1, 512, 64, 64),
    "cam": (1, 512, 64, 64),
    "danet": (1, 512, 48, 48),
    "mhsa": (1, 256, 48, 48),
    "multi-scale": (2, 512, 33, 33),
    "hard": (8, 512, 14, 14),
    "soft-hard": (8, 512, 14, 14),
    "pcm": (1, 192, 48, 48),
}
"""Shapes of the inputs of systems that are used on others than `SHAPE`: by key."""
SCALING = [(1, 64, side, side) for side in (32, 64, 96, 128)]
"""Inputs of `pam` of which --scaling prints time and memory."""
OPTIONS = {"window": 14, "stride": 7, "classes": 21, "heads": 8, "training": True, "embedding": 192}
"""Fields in which the benchmarked module differs from the example, where it has them: a realistic training step."""
OWN_OPTIONS = {"multi-scale": {"out_channels": 256, "rates": (12, 24, 36)}, "soft-hard": {"k": 16}}
"""Such fields of single systems: by key."""


def make_module(key, shape=None):
    return enlarged(npattn.CATALOGUE[key].example(), (shape or shape_of(key))[1])


def enlarged(module, channels):
    """Give a module its number of channels, and the options; a residual connection gives them to what it wraps."""
    fields = {field.name for field in dataclasses.fields(module)}
    if "inner" in fields:
        return dataclasses.replace(module, inner=enlarged(module.inner, channels))
    options = {name: value for name, value in OPTIONS.items() if name in fields} | OWN_OPTIONS.get(module.key, {})
    name = "in_channels" if "in_channels" in fields else "channels"
    return dataclasses.replace(module, **{name: channels}, **options)


def shape_of(key):
    return SHAPES.get(key, SHAPE)


def make_values(module, shape=None):
    batch, _, height, width = shape or shape_of(module.key)
    params, inputs = npattn.oracle.generic_values(module, batch=batch, height=height, width=width, dtype=np.float32)
    if "maps" in inputs:  # of which there may be any number: 21 classes
        inputs["maps"] = np.tile(inputs["maps"], (1, 7, 1, 1))
    return params, inputs


def numpy_passes(key, shape=None):
    """Return forward and backward as functions without arguments."""
    module = make_module(key, shape)
    params, inputs = make_values(module, shape)
    state = {}

    def forward():
        state.clear()
        state["run"] = module(params, *inputs.values())

    def backward():
        state["run"].backward(dy)

    forward()
    dy = state["run"].output
    return forward, backward


def torch_passes(key, shape=None, form=None):
    """Return the same for the PyTorch module that the tests compare with."""
    import torch

    module = make_module(key, shape)
    tests = tests_of(key)
    reference = getattr(tests, form or "fast", tests.published)(module)
    params, inputs = make_values(module, shape)
    initial = reference.state_dict()
    reference.load_state_dict({name: torch.as_tensor(params.get(name, initial[name])) for name in initial})
    reference.train(getattr(module, "training", False))
    state = {}
    leaves = [torch.tensor(x, requires_grad=True) for x in inputs.values()]

    def forward():
        state.clear()
        state["output"] = as_tuple(reference(*leaves))

    def backward():
        for tensor in [*leaves, *reference.parameters()]:
            tensor.grad = None
        torch.autograd.backward(state["output"], dy)

    forward()
    dy = [y.detach().clone() for y in state["output"]]
    return forward, backward


def tests_of(key):
    """Return the tests of a system, where its PyTorch forms stand."""
    name = npattn.CATALOGUE[key].__module__.rpartition(".")[2]
    return importlib.import_module(f"tests.attention.test_{name}")


IMPLEMENTATIONS = {
    "npattn": numpy_passes,
    "pytorch": torch_passes,
    "fused": functools.partial(torch_passes, form="fused"),
}


def medians(passes, repeats):
    """Time several implementations in turns: median seconds of forward, backward and both."""
    times = {name: [] for name in passes}
    for _ in range(repeats):
        for name, (forward, backward) in passes.items():
            start = time.perf_counter()
            forward()
            middle = time.perf_counter()
            backward()
            end = time.perf_counter()
            times[name].append((middle - start, end - middle, end - start))
    return {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in times.items()}


def peak_megabytes(key, name, shape=None):
    """Measure in a fresh process by how much a forward and backward pass raise the peak of resident memory."""
    command = [sys.executable, __file__, key, "--peak", name, "--shape", *map(str, shape or shape_of(key))]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def print_peak(key, name, shape):
    """Print that figure for this process."""
    forward, backward = IMPLEMENTATIONS[name](key, shape)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = resident("VmRSS")
    forward()
    backward()
    print((resident("VmHWM") - before) / 1024)


def resident(field):
    """Read resident memory from the kernel, in kB: VmRSS is the present, VmHWM the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(field)))


def print_scaling(repeats):
    """Print how position attention's time and memory grow with the number of positions, and return the numbers.

    A row holds the positions, the seconds of forward, backward and both, and the megabytes at the peak.
    """
    print(f"{platform.machine()}, {os.cpu_count()} cores, NumPy {np.__version__}, float32, {SCALING[0][1]} channels")
    print(f"{'positions':>10}{'forward':>14}{'backward':>14}{'both':>14}{'peak MB':>14}{'N x N MB':>14}")
    rows = []
    for shape in SCALING:
        found = medians({"npattn": numpy_passes("pam", shape)}, repeats)["npattn"]
        rows.append((shape[2] * shape[3], *found, peak_megabytes("pam", "npattn", shape)))
        positions, *seconds, peak = rows[-1]
        cells = [f"{1e3 * second:.1f} ms" for second in seconds]
        cells += [f"{peak:.0f}", f"{4 * positions**2 / 2**20:.0f}"]
        print(f"{positions:>10}" + "".join(f"{cell:>14}" for cell in cells), flush=True)
    return rows


def plot_scaling(rows, path):
    """Draw those numbers, both axes logarithmic, beside lines that grow as N and as N²."""
    from matplotlib.figure import Figure

    positions, forward, backward, _, peak = np.array(rows).T
    figure = Figure(figsize=(10, 4.6), dpi=110, layout="constrained")
    figure.suptitle(f"position attention, {SCALING[0][1]} channels, float32, {os.cpu_count()} cores")
    time_axes, memory_axes = figure.subplots(1, 2)
    time_axes.loglog(positions, backward, "o-", color="#c8553d", label="backward")
    time_axes.loglog(positions, forward, "o-", color="#1f6f8b", label="forward")
    time_axes.set_ylabel("seconds")
    memory_axes.loglog(positions, 4 * positions**2 / 2**20, ":", color="0.4", label="the N × N map alone")
    memory_axes.loglog(positions, peak, "o-", color="#2a9d8f", label="forward and backward, peak")
    memory_axes.set_ylabel("megabytes")
    for axes, end in ((time_axes, forward[-1]), (memory_axes, peak[-1])):
        for power, style, name in ((2, "--", "as N²"), (1, "-.", "as N")):
            line = end * (positions / positions[-1]) ** power
            axes.loglog(positions, line, style, color="0.6", linewidth=1, label=name)
        axes.set_xlabel("positions N")
        axes.set_xticks(positions, [f"{side}²" for side in np.sqrt(positions).astype(int)])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path)


def main(argv=None):
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("keys", nargs="*", metavar="KEY", help="systems (default: all)")
    parser.add_argument("--repeats", type=int, default=15, help="passes of each, in turns (default: 15)")
    parser.add_argument("--scaling", action="store_true", help="print how pam's time and memory grow, and nothing else")
    parser.add_argument("--plot", metavar="FILE", help="with --scaling: also draw it, as .png, .pdf or .svg")
    parser.add_argument("--peak", choices=IMPLEMENTATIONS, help=argparse.SUPPRESS)
    parser.add_argument("--shape", type=int, nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.plot and not arguments.scaling:
        parser.error("--plot draws what --scaling measures: give both")
    if arguments.plot and not importlib.util.find_spec("matplotlib"):
        parser.exit(2, f"{parser.prog}: --plot needs matplotlib: pip install 'npattn[plot]'\n")
    sys.path.insert(0, str(Path(__file__).parents[2]))  # the PyTorch forms stand in the tests
    if arguments.peak:
        print_peak(arguments.keys[0], arguments.peak, tuple(arguments.shape))
        return
    if arguments.scaling:
        rows = print_scaling(arguments.repeats)
        if arguments.plot:
            plot_scaling(rows, arguments.plot)
            print(arguments.plot)
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores, NumPy {np.__version__}, float32")
    print(f"{'':<22}{'forward':>14}{'backward':>14}{'both':>14}{'peak MB':>14}")
    for key in arguments.keys or npattn.CATALOGUE:
        names = ["npattn"]
        if importlib.util.find_spec("torch"):
            names += ["pytorch", "fused"] if hasattr(tests_of(key), "fused") else ["pytorch"]
        found = medians({name: IMPLEMENTATIONS[name](key) for name in names}, arguments.repeats)
        peaks = {name: peak_megabytes(key, name) for name in names}
        print(f"input {shape_of(key)}")
        for name in names:
            cells = [f"{1e3 * seconds:.1f} ms" for seconds in found[name]] + [f"{peaks[name]:.0f}"]
            print(f"{key + ' ' + name:<22}" + "".join(f"{cell:>14}" for cell in cells))
        for name in names[1:]:
            ratios = [a / b for a, b in zip(found["npattn"], found[name], strict=True)]
            ratios.append(peaks["npattn"] / peaks[name])
            print(f"{f'  ratio to {name}':<22}" + "".join(f"{ratio:>14.2f}" for ratio in ratios), flush=True)


if __name__ == "__main__":
    main()
