"""How often a failing report names the mistake: every mistake of the catalogue is planted, and looked for.

A mistake stands in one call of its primitive, or in every one, in the system's own code on float32, whose results are
rounded to the format; or in the pass with every operation rounded. What the golden case refuses is diagnosed. Mistakes
whose exact results differ by less than the case's budgets can't be told apart: any of them is the right name.

    python tests/benchmarks/diagnosis.py
    python tests/benchmarks/diagnosis.py se eca --seeds 3
    python tests/benchmarks/diagnosis.py --quick
    python tests/benchmarks/diagnosis.py --foreign mine.py
    python tests/benchmarks/diagnosis.py mhsa pam --shape 1,64,32,32 --most 6 --formats float16

A file of foreign mistakes has a list MISTAKES of tuples: the system's key, its hyperparameters as a dict, a function of
torch tensors ``(params, *inputs)`` that returns the output, or a tuple of them, and words, one of which must be among
the first suspect's. Beside it may stand KINDS, by the functions' names the catalogue's own name of the mistake, or
several, "by rule: " and words of the name, or None where its kind is not in the catalogue: then that name is right
too, and the rate among those in it is written.

With --shape the cases are of so many images, channels, rows and columns, --most mistakes (default: 2) are drawn among
primitives and ways, and each search has the time that a failing test gives it, on this process's cores.
"""

import argparse
import concurrent.futures
import functools
import importlib.util
import itertools
import multiprocessing
import os
import sys
import time
import zlib
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))  # the PyTorch forms stand in the tests

import npattn
from npattn.module import as_tuple
from npattn.oracle import golden, mistakes
from npattn.oracle.budgets import Given, named_results
from npattn.oracle.mistakes.candidates import Passes
from npattn.oracle.mistakes.distances import Ruler
from npattn.oracle.mistakes.ordering import with_every
from npattn.oracle.mistakes.planting import EVERY
from npattn.oracle.mistakes.roundings import NARROW
from tests.benchmarks import kernels
from tests.benchmarks.diagnosis_at_size import measure_at_size, report_at_size
from tests.benchmarks.judge import FORMATS, SYSTEMS, modules_of
from tests.benchmarks.trials import Trial, kinds_in, report, tell

SHAPES = (2, 7, 5), (1, 9, 9), (3, 5, 12)
"""Images, height and width."""
SECONDS = 60.0
"""What a search may take here, where passes are kept from one to the next."""


def run(module, *given):
    return named_results(module, Given(*given))


def plant(case, only=(), most=None):
    """Plant every mistake once, or so many at most, and diagnose what is refused."""
    exact = kernels.given(case, np.float64)
    passes, trials = Passes(), []
    with np.errstate(all="ignore"):
        places = mistakes.sites(run, [m for m in mistakes.MISTAKES if not only or str(m) in only], case.module, *exact)
    chosen = sorted(places, key=lambda m: zlib.crc32(f"{m} {m.way} {case} which".encode()))[:most]
    for mistake in chosen:
        where = with_every(places)[mistake]
        site = where[zlib.crc32(f"{mistake} {mistake.way} {case}".encode()) % len(where)]
        wrong = mistakes.faulty(run, mistake, site)
        with np.errstate(all="ignore"):
            results = kernels.rounded(wrong(case.module, *kernels.given(case)), case.format)
        results = {name: a for name, a in results.items() if name not in case.maps}
        if case.compare(results).passed:
            continue
        with np.errstate(all="ignore"):
            true = wrong(case.module, *exact)
        found = mistakes.diagnose(case, results, SECONDS, passes)
        trials.append(judge(case, (mistake, site), true, found, passes))
    return trials


def judge(case, planted, true, found, passes):
    """Find the place of the right name: of a mistake whose exact results are those of the planted one.

    Of operands in a narrower format it is that format too: their roundings can't be told from those of other steps.
    """
    ruler = Ruler(case, {n: np.asarray(true[n]) for n in true if n not in case.maps})
    right = {tuple(m for m, _ in at) for at, known in passes.found.items() if close(ruler, known)}
    mistake, site = planted
    narrow = next((format for format in NARROW if mistake.name.endswith(f" in {format}")), None)
    rank = next(
        (
            i
            for i, suspect in enumerate(found, 1)
            if suspect.mistakes in right or (narrow and suspect.name == f"arithmetic in {narrow}")
        ),
        0,
    )
    name = f"{mistake}, {mistake.way}, {'every call' if site == EVERY else f'call {site}'}"
    said = found[0].name if found else ""
    return Trial(case.module.key, repr(case), case.dtype, name, rank, found.sure, found.alike, said)


def close(ruler, known):
    """Tell whether exact results are the same but for what a kernel may err."""
    return known is not None and ruler.measure(known).worst <= 0.5


def measure(module, shape, format, seed, *, only=(), most=None):
    """Plant mistakes in one case."""
    batch, height, width = shape
    try:
        case = golden(module, batch=batch, height=height, width=width, dtype=format, seed=seed)
    except ValueError:
        return []
    return plant(case, only, most)


def foreign(path, seeds, shapes=SHAPES, formats=FORMATS):
    """Try mistakes that others have written in PyTorch, each in every case."""
    count = range(len(read_foreign(path)))
    cases = itertools.product(count, shapes, formats, seeds)
    return [trial for case in cases if (trial := try_foreign(path, *case))]


@functools.cache
def read_foreign(path):
    """Read the list of mistakes in a file."""
    return read_module(path).MISTAKES


@functools.cache
def read_module(path):
    """Run a file."""
    spec = importlib.util.spec_from_file_location("foreign", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def kind_of(path, function):
    """Return the catalogue's name of a foreign mistake; None where the file tells of none."""
    return getattr(read_module(path), "KINDS", {}).get(function.__name__)


@functools.lru_cache(maxsize=50)
def case_of(module, shape, format, seed):
    """Make a golden case; None where there is none of that size."""
    batch, height, width = shape
    try:
        return golden(module, batch=batch, height=height, width=width, dtype=format, seed=seed)
    except ValueError:
        return None


def try_foreign(path, number, shape, format, seed):
    """Try one mistake of a file in one case; None where it makes no difference there."""
    import torch

    key, hyperparameters, function, names = read_foreign(path)[number]
    module = SYSTEMS[key](**hyperparameters) if hyperparameters else SYSTEMS[key].example()
    case = case_of(module, shape, format, seed)
    if case is None:
        return None
    params, inputs, upstream = case.arrays(torch.tensor)
    leaves = {f"{name}.grad": a for name, a in (inputs | params).items() if f"{name}.grad" in case.expected}
    for leaf in leaves.values():
        leaf.requires_grad_()
    outputs = as_tuple(function(params, *inputs.values()))
    torch.autograd.backward(outputs, list(upstream.values()))
    results = dict(zip(upstream, (y.detach() for y in outputs), strict=True))
    results |= {name: torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for name, leaf in leaves.items()}
    results |= {name: params[name] for name in params if name in case.expected}  # new running statistics
    results = kernels.rounded({name: a.numpy() for name, a in results.items()}, case.format)
    if case.compare(results).passed:
        return None
    found = mistakes.diagnose(case, results, SECONDS)
    kind = kind_of(path, function)
    ranks = [i for i, one in enumerate(found, 1) if is_named(one, names, kind)]
    said = found[0].name if found else ""
    label = f"{function.__name__}: {names[0]}"
    rank = min(ranks, default=0)
    return Trial(key, repr(case), format, label, rank, found.sure, found.alike, said, kind)


def is_named(suspect, words, kind):
    """Tell whether a suspect is a foreign mistake, by words of its author's or by the name of its kind."""
    by_words = any(word in suspect.name for word in words)
    rules = [one.partition("by rule: ")[2] for one in kinds_in(kind)]
    by_rule = any(rule and rule in suspect.name for rule in rules)
    return by_words or by_rule or any(str(one) in kinds_in(kind) for one in (*suspect.mistakes, *suspect.twins))


def try_cases(path, number, cases):
    """Try one mistake of a file in several cases."""
    return [trial for case in cases if (trial := try_foreign(path, number, *case))]


def foreign_groups(arguments):
    """List what is to be done with mistakes of a file: one after the other, in so many cases each."""
    cases = list(itertools.product(SHAPES, FORMATS, range(arguments.seeds)))
    groups = []
    for number, (key, _, function, _) in enumerate(read_foreign(arguments.foreign)):
        name = function.__name__
        if (arguments.keys and key not in arguments.keys) or (arguments.only and name not in arguments.only):
            continue
        if arguments.half and half_of(name) != arguments.half:
            continue
        chosen = sorted(cases, key=lambda case: zlib.crc32(f"{name} {case}".encode()))[: arguments.most]
        groups.append(functools.partial(try_cases, arguments.foreign, number, chosen))
    return groups


def half_of(name):
    """Tell which half of the mistakes one belongs to: the search was made better on the first alone."""
    return "second" if zlib.crc32(name.encode()) % 2 else "first"


def groups_of(arguments):
    """List the cases in which mistakes of the catalogue are planted."""
    return [
        functools.partial(measure, module, shape, format, seed, only=tuple(arguments.only), most=arguments.most)
        for key in arguments.keys or SYSTEMS
        for module in modules_of(key)[: 1 if arguments.quick else None]
        for shape in (SHAPES[:1] if arguments.quick else SHAPES)
        for format in FORMATS
        for seed in range(arguments.seeds)
    ]


def groups_at_size(arguments):
    """List the cases of a size that is asked for."""
    return [
        functools.partial(measure_at_size, key, arguments.shape, format, arguments.most or 2, seed)
        for key in arguments.keys or npattn.CATALOGUE
        for format in arguments.formats
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    ]


def shape_of(text):
    """Read images, channels, height and width."""
    shape = tuple(map(int, text.split(",")))
    if len(shape) != 4 or min(shape) < 1:
        raise ValueError(text)
    return shape


def results_of(groups, jobs):
    """Call functions, in so many processes; yield what they return, in order."""
    if jobs == 1:
        yield from (group() for group in groups)
        return
    with concurrent.futures.ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        for future in [pool.submit(group) for group in groups]:
            yield future.result()


def main(argv=None):
    """Print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("keys", nargs="*", metavar="KEY", help="systems (default: all)")
    parser.add_argument("--quick", action="store_true", help="the examples alone, on one shape")
    parser.add_argument("--foreign", metavar="FILE", help="mistakes that others have written in PyTorch")
    parser.add_argument("--only", nargs="*", default=(), metavar="NAME", help="plant these mistakes alone")
    parser.add_argument("--half", choices=["first", "second"], help="of the mistakes in the file, those of one half")
    parser.add_argument(
        "--most",
        type=int,
        metavar="N",
        help="plant so many in each case, or try each of the file in so many cases, chosen by name",
    )
    parser.add_argument("--shape", type=shape_of, metavar="B,C,H,W", help="measure cases of this size, timed")
    parser.add_argument("--formats", nargs="+", default=FORMATS, choices=FORMATS, help="of those (default: all)")
    parser.add_argument("--seeds", type=int, default=1, help="cases of every shape (default: 1)")
    parser.add_argument("--first-seed", type=int, default=0, help="of the cases of that size")
    parser.add_argument("--jobs", type=int, help="processes (default: one a core, or one where searches are timed)")
    parser.add_argument("--list", type=int, default=10, metavar="N", help="list so many that were not first")
    arguments = parser.parse_args(argv)
    for key in arguments.keys:
        if key not in SYSTEMS:
            parser.error(f"unknown system {key!r} (expected some of {', '.join(SYSTEMS)})")
    began, trials = time.perf_counter(), []
    make = groups_at_size if arguments.shape else foreign_groups if arguments.foreign else groups_of
    for found in results_of(make(arguments), arguments.jobs or (1 if arguments.shape else os.cpu_count())):
        trials += found
        if found:
            tell(trials, began)
    print("\n".join((report_at_size if arguments.shape else report)(trials, arguments.list)))
    print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
