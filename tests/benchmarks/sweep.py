"""Judge correct kernels on every hard case: NumPy's float32, and a plain kernel in the case's format.

``python tests/benchmarks/sweep.py [SYSTEM ...] [--formats FORMAT ...] [--limit N]`` prints a line for each system and
format: how many cases, how many of them with elements that are not judged, and for either kernel how many refuse it and
its largest errors, in units of what is allowed. Any refusal is a fault of the oracle; its report follows.
"""

import argparse
import sys
import time

import numpy as np

import npattn
from npattn import oracle
from npattn.oracle.budgets import Given, named_results, run_on
from npattn.oracle.cases import FORMATS_SWEPT
from npattn.oracle.rounding import Rounding


def kernels(case):
    """The results of correct kernels, by name."""
    given = Given(case.params, case.inputs, case.upstream)
    with np.errstate(all="ignore"):
        yield "float32", named_results(case.module, given)
        yield "nearest", run_on(Rounding(case.format), case.module, given)


def sweep(system, dtype, limit):
    """Judge on the cases of one system and format; print a line, return the reports of what is refused."""
    recipes, start, unjudged, refused, worst = oracle.cases(system, [dtype], limit=limit), time.time(), 0, [], {}
    for recipe in recipes:
        case = recipe.make()
        unjudged += any(not np.isfinite(budget).all() for budget in case.budget.values())
        for name, results in kernels(case):
            report = case.compare(results)
            ratios = [(j.worst / j.worst_limit, j.rms / j.rms_limit) for j in report.judgements.values()]
            worst[name] = np.maximum(worst.get(name, 0), np.nanmax(ratios, axis=0))
            if not report.passed:
                refused.append((name, f"{recipe}, {name}:\n{report}"))
    columns = "  ".join(
        f"{name}: {sum(kind == name for kind, _ in refused):>2} refused, worst {most:>5.3g}, rms {rms:>5.3g}"
        for name, (most, rms) in worst.items()
    )
    seconds = (time.time() - start) / len(recipes)
    print(
        f"{system:22} {dtype:9} {len(recipes):>3} cases {seconds:4.1f} s each, {unjudged} not judged in full  {columns}"
    )
    sys.stdout.flush()
    return [text for _, text in refused]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("systems", nargs="*", metavar="SYSTEM", help=f"default: all of {', '.join(npattn.CATALOGUE)}")
    parser.add_argument("--formats", nargs="+", default=FORMATS_SWEPT, choices=list(oracle.FORMATS))
    parser.add_argument("--limit", type=int, help="at most so many cases of each system and format")
    options = parser.parse_args()
    refused = [
        text
        for system in options.systems or npattn.CATALOGUE
        for dtype in options.formats
        for text in sweep(system, dtype, options.limit)
    ]
    print(*refused, sep="\n\n")
    sys.exit(bool(refused))


if __name__ == "__main__":
    main()
