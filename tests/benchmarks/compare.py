"""Time and memory of every system beside the same system in PyTorch eager, forward and backward.

Both run in turns in one process, so that whatever else the machine does falls on both; what counts is the ratio of the
medians. Peak memory is that of a fresh process for each, beyond its inputs and parameters.

    python tests/benchmarks/compare.py
    python tests/benchmarks/compare.py se eca --repeats 30
"""

import argparse
import dataclasses
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
OPTIONS = {"window": 14, "stride": 7, "classes": 21, "training": True}
"""Fields in which the benchmarked module differs from the example, where it has them: a realistic training step."""


def make_module(key):
    system = npattn.CATALOGUE[key]
    fields = {field.name for field in dataclasses.fields(system)}
    options = {name: value for name, value in OPTIONS.items() if name in fields}
    return dataclasses.replace(system.example(), channels=SHAPE[1], **options)


def make_values(module):
    batch, _, height, width = SHAPE
    return npattn.oracle.generic_values(module, batch=batch, height=height, width=width, dtype=np.float32)


def numpy_passes(key):
    """Return forward and backward as functions without arguments."""
    module = make_module(key)
    params, inputs = make_values(module)
    state = {}

    def forward():
        state.clear()
        state["run"] = module(params, *inputs.values())

    def backward():
        state["run"].backward(dy)

    forward()
    dy = state["run"].output
    return forward, backward


def torch_passes(key):
    """Return the same for the PyTorch module that the tests compare with."""
    import torch

    module = make_module(key)
    name = type(module).__module__.rpartition(".")[2]
    tests = importlib.import_module(f"tests.attention.test_{name}")
    reference = getattr(tests, "fast", tests.published)(module)
    params, inputs = make_values(module)
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


IMPLEMENTATIONS = {"npattn": numpy_passes, "pytorch": torch_passes}


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


def peak_megabytes(key, name):
    """Measure in a fresh process by how much a forward and backward pass raise the peak of resident memory."""
    command = [sys.executable, __file__, key, "--peak", name]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def print_peak(key, name):
    """Print that figure for this process."""
    forward, backward = IMPLEMENTATIONS[name](key)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = resident("VmRSS")
    forward()
    backward()
    print((resident("VmHWM") - before) / 1024)


def resident(field):
    """Read resident memory from the kernel, in kB: VmRSS is the present, VmHWM the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(field)))


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("keys", nargs="*", metavar="KEY", help="systems (default: all)")
    parser.add_argument("--repeats", type=int, default=15, help="passes of each, in turns (default: 15)")
    parser.add_argument("--peak", choices=IMPLEMENTATIONS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[2]))  # the PyTorch forms stand in the tests
    if arguments.peak:
        print_peak(arguments.keys[0], arguments.peak)
        return
    names = ["npattn"] + (["pytorch"] if importlib.util.find_spec("torch") else [])
    print(f"{platform.machine()}, {os.cpu_count()} cores, NumPy {np.__version__}, input {SHAPE} float32")
    print(f"{'':<22}{'forward':>14}{'backward':>14}{'both':>14}{'peak MB':>14}")
    for key in arguments.keys or npattn.CATALOGUE:
        found = medians({name: IMPLEMENTATIONS[name](key) for name in names}, arguments.repeats)
        peaks = {name: peak_megabytes(key, name) for name in names}
        for name in names:
            cells = [f"{1e3 * seconds:.1f} ms" for seconds in found[name]] + [f"{peaks[name]:.0f}"]
            print(f"{key + ' ' + name:<22}" + "".join(f"{cell:>14}" for cell in cells))
        if "pytorch" in found:
            ratios = [a / b for a, b in zip(found["npattn"], found["pytorch"], strict=True)]
            ratios.append(peaks["npattn"] / peaks["pytorch"])
            print(f"{'  ratio':<22}" + "".join(f"{ratio:>14.2f}" for ratio in ratios), flush=True)


if __name__ == "__main__":
    main()
