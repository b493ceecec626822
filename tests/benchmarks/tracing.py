"""What tracing costs: every system's pass under a trace over the same pass alone, forward and backward.

Both run in turns in one process, each after a run that is not timed; what counts is the ratio of the medians, of the
time that passes and of the processor's time on all cores together. Shapes are those of `compare`: (8, 256, 56, 56), and
for systems that pair positions a smaller one. A traced pass should take no more than twice as long.

    python tests/benchmarks/tracing.py
    python tests/benchmarks/tracing.py eca residual --repeats 15
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import npattn
from tests.benchmarks import compare

LARGER = "hard", "soft-hard"
"""Systems that are measured on `compare.SHAPE` too, though they are used on smaller maps."""


def passes_of(key):
    """Return a pass of a system, forward and backward, alone and under a trace, as functions without arguments."""
    shape = compare.SHAPE if key in LARGER else compare.shape_of(key)
    module = compare.make_module(key, shape)
    params, inputs = compare.make_values(module, shape)
    dy = module(params, *inputs.values()).output

    def alone():
        module(params, *inputs.values()).backward(dy)

    def traced():
        steps = npattn.trace(module, params, *inputs.values())
        steps.backward(dy)
        return steps

    return alone, traced


def time_in_turns(functions, repeats):
    """Time functions in turns: for each, the median seconds that pass and those of the processor."""
    times = {function: [] for function in functions}
    for _ in range(repeats):
        for function, found in times.items():
            function()
            begun = time.perf_counter(), time.process_time()
            function()
            found.append((time.perf_counter() - begun[0], time.process_time() - begun[1]))
    return [[statistics.median(column) for column in zip(*found, strict=True)] for found in times.values()]


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("keys", nargs="*", help="systems (default: all)")
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args(arguments)
    print(f"{'':<22}{'pass, ms':>10}{'traced / alone':>16}{'processor':>11}")
    highest = 0.0
    for key in options.keys or npattn.CATALOGUE:
        alone, traced = time_in_turns(passes_of(key), options.repeats)
        ratios = [trace / plain for trace, plain in zip(traced, alone, strict=True)]
        highest = max(highest, ratios[0])
        print(f"{key:<22}{1e3 * alone[0]:>10.1f}{ratios[0]:>16.2f}{ratios[1]:>11.2f}", flush=True)
    print(f"{'highest':<22}{'':>10}{highest:>16.2f}")


if __name__ == "__main__":
    main()
