"""Time and memory of every system beside the same system in PyTorch eager, forward and backward.

Both run in turns in one process, so that whatever else the machine does falls on both; what counts is the ratio of the
medians. Peak memory is that of a fresh process for each, beyond its inputs and parameters.

    python tests/benchmarks/compare.py
    python tests/benchmarks/compare.py se eca --repeats 30

Beside the published form stands, where there is one, PyTorch's fused form of it. How position attention's time and
memory grow with the number of positions:

    python tests/benchmarks/compare.py --scaling
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
SHAPES = {"pam": (1, 512, 64, 64), "cam": (1, 512, 64, 64), "danet": (1, 512, 64, 64)}
"""Shapes of the inputs of systems that are used on others than `SHAPE`: by key."""
SCALING = [(1, 64, side, side) for side in (32, 64, 96, 128)]
"""Inputs of `pam` of which --scaling prints time and memory."""
OPTIONS = {"window": 14, "stride": 7, "classes": 21, "training": True}
"""Fields in which the benchmarked module differs from the example, where it has them: a realistic training step."""


def make_module(key, shape=None):
    system = npattn.CATALOGUE[key]
    fields = {field.name for field in dataclasses.fields(system)}
    options = {name: value for name, value in OPTIONS.items() if name in fields}
    channels = "in_channels" if "in_channels" in fields else "channels"
    return dataclasses.replace(system.example(), **{channels: (shape or shape_of(key))[1]}, **options)


def shape_of(key):
    return SHAPES.get(key, SHAPE)


def make_values(module, shape=None):
    batch, _, height, width = shape or shape_of(module.key)
    return npattn.oracle.generic_values(module, batch=batch, height=height, width=width, dtype=np.float32)


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
    """Print how position attention's time and memory grow with the number of positions."""
    print(f"{platform.machine()}, {os.cpu_count()} cores, NumPy {np.__version__}, float32, {SCALING[0][1]} channels")
    print(f"{'positions':>10}{'forward':>14}{'backward':>14}{'both':>14}{'peak MB':>14}{'N x N MB':>14}")
    for shape in SCALING:
        found = medians({"npattn": numpy_passes("pam", shape)}, repeats)["npattn"]
        positions = shape[2] * shape[3]
        cells = [f"{1e3 * seconds:.1f} ms" for seconds in found]
        cells += [f"{peak_megabytes('pam', 'npattn', shape):.0f}", f"{4 * positions**2 / 2**20:.0f}"]
        print(f"{positions:>10}" + "".join(f"{cell:>14}" for cell in cells), flush=True)


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("keys", nargs="*", metavar="KEY", help="systems (default: all)")
    parser.add_argument("--repeats", type=int, default=15, help="passes of each, in turns (default: 15)")
    parser.add_argument("--scaling", action="store_true", help="print how pam's time and memory grow, and nothing else")
    parser.add_argument("--peak", choices=IMPLEMENTATIONS, help=argparse.SUPPRESS)
    parser.add_argument("--shape", type=int, nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[2]))  # the PyTorch forms stand in the tests
    if arguments.peak:
        print_peak(arguments.keys[0], arguments.peak, tuple(arguments.shape))
        return
    if arguments.scaling:
        print_scaling(arguments.repeats)
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
