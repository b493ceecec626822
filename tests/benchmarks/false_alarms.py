"""How often a correct gradient is refused: every system at many seeds, as ``npattn check`` looks at them.

Run as ``python tests/benchmarks/false_alarms.py``. A row for each system counts the refusals, by the full Jacobian on a
crop of the photograph and by the adjoint identity at full size; the seeds at which a gradient needed a second look, for
it differs by more than the tolerance and rounding explains it; the largest error and the largest such rounding; and the
time that a seed takes.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np

from npattn.attention import CATALOGUE
from npattn.cli.photo import CROP_SIZE, checked_size, photo_values
from npattn.oracle import gradcheck


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("keys", nargs="*", choices=[[], *CATALOGUE], metavar="KEY", help="systems (default: all)")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=40)
    arguments = parser.parse_args()
    print(f"{'system':<22}  {'method':<8}  refused  second look    error  rounding  s/seed")
    refused = 0
    for key in arguments.keys or CATALOGUE:
        for method in ("jacobian", "adjoint"):
            refused += sweep(key, method, range(arguments.first_seed, arguments.first_seed + arguments.seeds))
    print(f"{refused} refused")
    return 1 if refused else 0


def sweep(key: str, method: str, seeds: range) -> int:
    """Check one system at every seed, print a row and what was refused, and count the refusals."""
    module = CATALOGUE[key].example()
    start, failures, looks, error, rounding = time.perf_counter(), [], 0, 0.0, 0.0
    for seed in seeds:
        values = photo_values(module, CROP_SIZE if method == "jacobian" else checked_size(module), seed)
        with np.errstate(all="ignore"):
            # Where all units of a layer are off, npattn check looks at other parameters too.
            report = gradcheck(module, *values, method=method, seed=seed, allow_zero=True)
        looks += bool(report.rounding)
        error = max(error, report.error)
        rounding = max([rounding, *report.rounding.values()])
        if not report.passed:
            failures.append(f"seed {seed}: {report}")
    each = (time.perf_counter() - start) / len(seeds)
    print(
        f"{key:<22}  {method:<8}  {len(failures):>7}  {looks:>11}  {error:7.1e}  {rounding:8.1e}  {each:6.2f}",
        *failures,
        sep="\n",
        flush=True,
    )
    return len(failures)


if __name__ == "__main__":
    sys.exit(main())
