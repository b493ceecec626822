"""Where does a failing golden case say that the mistake is? Faults planted in every primitive of every system.

Each fault (`faults`: a mistake in one call of a primitive) is planted in each of its places, in kernels that compute at
once in float32 and one rounded operation at a time, and judged twice: with all steps given, and by the results alone.

    python tests/benchmarks/localising.py
    python tests/benchmarks/localising.py eca cbam --formats bfloat16 --seeds 3
    python tests/benchmarks/localising.py --every-place

A fault stands at the first step that it changes in an exact run. It is visible there if that alone, computed exactly,
is beyond the step's budget. Some change no step: they change nothing, or what reaches the results alone.
"""

import argparse
import dataclasses
import sys
import time
import zlib
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

import npattn
from npattn.oracle import golden
from npattn.oracle import mistakes as faults
from npattn.oracle.mistakes.planting import answering
from npattn.oracle.steps.beginning import NEAR_SHARE, find_feeds, share_of_limit
from npattn.oracle.steps.recorded import Recorded, is_judged, name_steps
from npattn.oracle.steps.upstream import find_suspects, number_of
from tests.benchmarks import kernels
from tests.benchmarks.judge import modules_of

FORMATS = "bfloat16", "float16", "float32"
SHAPE = 2, 7, 5
"""Images, height and width."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """One fault in one place of one kernel.

    Attributes
    ----------
    key, case, fault : str
    place : str or None
        The step at which it stands; None if it changes no step.
    visible : bool
        Whether it is beyond the budget there.
    failed : bool
        Whether the results alone are told from right ones.
    named : str or None
        The first step that is off, where steps are given.
    near : bool
        Whether the report names the step at which the fault stands beside that one, as one that is nearly off.
    clear, hidden : tuple of str
        By the results alone: numbers of the steps that can have spoilt them.
    """

    key: str
    case: str
    fault: str
    place: str | None
    visible: bool
    failed: bool
    named: str | None
    near: bool
    clear: tuple
    hidden: tuple

    @property
    def right(self):
        return self.named == self.place

    @property
    def candidates(self):
        return set(split(self.clear)), set(split(self.hidden))


def split(numbers):
    """Take equations that are suspected together with their mirror images as both."""
    return [number for pair in numbers for number in pair.split(" with ")]


def run_with_steps(module, params, inputs, upstream):
    """Run forward and backward; name results and steps as a case does."""
    found = {}

    def keep(steps):
        found.update({name: np.array(one.value) for name, one in name_steps(steps).items() if is_judged(one.value)})
        return {}

    return kernels.run_reference(Recorded(module, keep), params, inputs, upstream) | found


def run_alike(*given):
    """Run as with a fault, but without one, so that the numbers are the same to the last bit elsewhere."""
    with answering(lambda *_: NotImplemented):
        return run_with_steps(*given)


def place_of(case, right, wrong):
    """Return the first step that two exact runs disagree on."""
    return next((name for name in case.steps() if not np.array_equal(right[name], wrong[name], equal_nan=True)), None)


def suspects_of(case, feeds, results):
    """Judge results alone: whether they fail, and where what is wrong can have begun."""
    judgements = case.compare(results).judgements
    wrong = [name for name, judgement in judgements.items() if not judgement.within]
    if not wrong:
        return {"failed": False, "clear": (), "hidden": ()}
    found = find_suspects(feeds, wrong, [name for name in judgements if name not in wrong])
    return {"failed": True, "clear": found.clear, "hidden": found.hidden}


def try_case(case, *, every_place=False, planted=faults.FAULTS, most=None):
    """Plant faults in a case's primitives; yield a trial for each, its place and kernel."""
    exact = kernels.given(case, np.float64)
    with np.errstate(all="ignore"):
        right = run_alike(case.module, *exact)
        feeds = find_feeds(case)
        places = faults.sites(kernels.run_reference, [one for one in planted if one.primitive], case.module, *exact)
        chosen = [
            (fault, site)
            for fault, where in places.items()
            for site in (where if every_place else [where[zlib.crc32(f"{fault} {case}".encode()) % len(where)]])
        ]
        for fault, site in chosen[:: 1 if most is None else max(1, len(chosen) // most)]:
            run = faults.faulty(run_with_steps, fault, site)
            wrong = run(case.module, *exact)
            place = place_of(case, right, wrong)
            visible = place is not None and not case.compare({place: wrong[place]}).judgements[place].within
            for way, kernel in (("fused", kernels.single), ("plain", kernels.nearest)):
                found = kernel(case, run)
                report = case.compare(found)
                results = {name: value for name, value in found.items() if name in case.expected}
                yield Trial(
                    key=getattr(case.module, "key", type(case.module).__name__),
                    case=repr(case),
                    fault=f"{fault}, call {site}, {way}",
                    place=place,
                    visible=visible,
                    named=report.first_wrong,
                    near=place is not None and share_of_limit(report.judgements[place]) > NEAR_SHARE,
                    **suspects_of(case, feeds, results),
                )


def try_module(module, format, seed, **options):
    """Try the case of a module; nothing where it takes no map of this size."""
    batch, height, width = SHAPE
    try:
        case = golden(module, batch=batch, height=height, width=width, dtype=format, seed=seed, certify=False)
    except ValueError:
        return []
    return list(try_case(case, **options))


def count(trials, rule):
    return sum(map(rule, trials))


def table(trials):
    """Write, for each system, how many faults are named at their step, and how often the results alone tell."""
    lines = [
        f"{'':<22}{'visible':>9}{'named':>9}{'else-':>9}{'results':>9}{'among':>9}{'hidden':>9}{'not':>9}{'candi-':>9}",
        f"{'':<22}{'at step':>9}{'there':>9}{'where':>9}{'wrong':>9}{'clear':>9}{'':>9}{'among':>9}{'dates':>9}",
    ]
    for key in (*dict.fromkeys(trial.key for trial in trials), "all"):
        those = [trial for trial in trials if key in (trial.key, "all") and trial.place is not None]
        seen = [trial for trial in those if trial.visible]
        wrong = [trial for trial in those if trial.failed]
        clear = count(wrong, lambda t: number_of(t.place) in t.candidates[0])
        hidden = count(wrong, lambda t: number_of(t.place) in t.candidates[1] - t.candidates[0])
        candidates = np.mean([len(t.clear) for t in wrong if t.clear] or [np.nan])
        numbers = len(seen), count(seen, lambda t: t.right), count(seen, lambda t: not t.right)
        numbers += len(wrong), clear, hidden, len(wrong) - clear - hidden
        lines.append(f"{key:<22}" + "".join(f"{number:>9}" for number in numbers) + f"{candidates:>9.1f}")
    return lines


def exceptions(trials, most):
    """List what is named elsewhere, what results point away from, and what changes no step."""
    elsewhere = [t for t in trials if t.visible and not t.right]
    missed = [t for t in trials if t.place and t.failed and number_of(t.place) not in set.union(*t.candidates)]
    early = [t for t in trials if t.place and not t.visible and t.named not in (None, t.place)]
    unnamed = [t for t in early if not t.near]
    nowhere = [t for t in trials if t.place is None and t.failed]
    lines = []
    for title, those in (
        ("visible at its step, and named elsewhere", elsewhere),
        ("not among what results point to", missed),
        ("not visible at its step, and another named", early),
        ("of these, its own not named as nearly off", unnamed),
        ("seen in results, and in no step", nowhere),
    ):
        lines.append(f"{title}: {len(those)}")
        lines += [f"  {t.case}: {t.fault}: at {t.place}, named {t.named}" for t in those[:most]]
    lines.append(f"changes nothing: {count(trials, lambda t: t.place is None and not t.failed)}")
    return lines


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("keys", nargs="*", help="systems (default: all)")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS)
    parser.add_argument("--seeds", type=int, default=1, help="cases of each module and format")
    parser.add_argument("--every-place", action="store_true", help="plant each fault in all calls that it applies to")
    parser.add_argument("--examples", action="store_true", help="the systems' examples alone, without variants")
    parser.add_argument("--list", type=int, default=20, help="lines of each list of exceptions")
    return parser.parse_args()


def main():
    options, trials, begun = parse(), [], time.perf_counter()
    for key in options.keys or npattn.CATALOGUE:
        modules = modules_of(key)[: 1 if options.examples else None]
        for module in modules:
            for format in options.formats:
                for seed in range(options.seeds):
                    trials += try_module(module, format, seed, every_place=options.every_place)
        print(f"{key}: {len(trials)} trials, {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)
    print("\n".join([*table(trials), "", *exceptions(trials, options.list)]))


if __name__ == "__main__":
    main()
