"""Mistakes planted in cases of a size that users have: named first, and how long the report takes.

Each is drawn by seed among primitives and ways in turn, so that no primitive has most of them, and is looked for as a
failing test does, with nothing kept from one search to the next and no more time than it has.
"""

import contextlib
import statistics
import time
import zlib

import numpy as np

from npattn.oracle import golden, mistakes
from npattn.oracle.budgets import Given, named_results
from npattn.oracle.mistakes.distances import Ruler
from npattn.oracle.mistakes.ordering import with_every
from npattn.oracle.mistakes.running import UNFIT
from tests.benchmarks import kernels
from tests.benchmarks.golden import widened
from tests.benchmarks.judge import SYSTEMS
from tests.benchmarks.trials import Trial, named, share, surely_wrong

__all__ = ["measure_at_size", "report_at_size"]

DRAWN = 3
"""Times as many that are tried as are to be refused: results of some are within the budgets."""
FIRST = 4
"""Suspects whose results are compared with those of the planted mistake."""


def run(module, *given):
    return named_results(module, Given(*given))


def measure_at_size(key, shape, format, count, seed):
    """Plant so many mistakes in a system's example of so many channels: a list of trials."""
    batch, channels, height, width = shape
    module = widened(SYSTEMS[key].example(), channels).for_size(height, width)
    try:
        case = golden(module, batch=batch, height=height, width=width, dtype=format, seed=seed)
    except ValueError:
        return []
    trials = []
    for mistake, site in drawn(case, seed)[: DRAWN * count]:
        if len(trials) < count:
            trial = search_for(case, mistake, site)
            trials += [trial] if trial is not None else []
    return trials


def drawn(case, seed):
    """List mistakes with their calls by chance: of each way in turn one, of its primitives in turn."""

    def chance(*words):
        return zlib.crc32(" ".join(map(str, (*words, seed, case.module.key))).encode())

    with np.errstate(all="ignore"):
        places = with_every(mistakes.sites(run, mistakes.MISTAKES, case.module, *kernels.given(case)))
    rounds = {}
    for kind in ("way", "primitive"):  # the rank among those of its primitive, then among those of its way
        groups = {}
        for one in sorted(places, key=lambda m: (rounds.get(m, 0), chance(m, m.way))):
            groups.setdefault((one.primitive, one.way) if kind == "way" else one.way, []).append(one)
        rounds = {one: i for group in groups.values() for i, one in enumerate(group)}
    chosen = sorted(places, key=lambda m: (rounds[m], chance(m.way)))
    return [(one, places[one][chance(one, one.way, "site") % len(places[one])]) for one in chosen]


def search_for(case, mistake, site):
    """Plant one mistake and time its diagnosis; None where the case does not refuse it, or it can't be made."""
    try:
        with np.errstate(all="ignore"):
            results = mistakes.faulty(run, mistake, site)(case.module, *kernels.given(case))
    except UNFIT:
        return None
    results = {name: a for name, a in kernels.rounded(results, case.format).items() if name not in case.maps}
    if case.compare(results).passed:
        return None
    began = time.perf_counter()
    found = case.diagnose(results)
    seconds = time.perf_counter() - began
    alike = max(1, found.alike)
    rank = next((i for i, one in enumerate(found[: alike + FIRST], 1) if is_same(case, (mistake, site), one)), 0)
    name = f"{mistake}, {mistake.way}, call {site}"
    said = found[0].name if found else ""
    return Trial(
        case.module.key,
        repr(case),
        case.dtype,
        name,
        rank,
        found.sure,
        found.alike,
        said,
        seconds=seconds,
        complete=found.complete,
    )


def is_same(case, planted, suspect):
    """Tell whether a suspect is the planted mistake, by name or by what it gives."""
    (mistake, site), ones = planted, (*suspect.mistakes, *suspect.twins)
    if len(suspect.mistakes) == 1 and any(str(one) == str(mistake) and one.way == mistake.way for one in ones):
        return True
    exact = kernels.given(case, np.float64)
    with np.errstate(all="ignore"):
        true = mistakes.faulty(run, mistake, site)(case.module, *exact)
        ruler = Ruler(case, {name: np.asarray(true[name]) for name in true if name not in case.maps})
        return any(close(ruler, case, found) for found in results_of(case, suspect, exact))


def results_of(case, suspect, exact):
    """Yield the exact results of a suspect in each call that it can stand in."""
    if len(suspect.mistakes) > 1:
        return
    (mistake,) = suspect.mistakes
    places = with_every(mistakes.sites(run, [mistake], case.module, *exact)).get(mistake, [])
    for site in places:
        with contextlib.suppress(UNFIT):
            found = mistakes.faulty(run, mistake, site)(case.module, *exact)
            if mistake.way == "output":
                found |= {name: a for name, a in case.expected.items() if name.endswith(".grad")}
            yield found


def close(ruler, case, found):
    """Tell whether exact results are the same but for what a kernel may err."""
    return ruler.measure(found).worst <= 0.5


def report_at_size(trials, most):
    """Write, system by system, how often the right name was first, a wrong one sure, and the seconds."""
    heads = "planted", "first", "cut off", "none", "wrong", "median", "most"
    lines = [f"{'':<24}" + "".join(f"{head:>9}" for head in heads)]
    groups = {key: [t for t in trials if t.key == key] for key in dict.fromkeys(t.key for t in trials)}
    for name, some in (groups | {"all": trials}).items():
        if not some:
            continue
        counts = (
            sum(map(named, some)),
            sum(not t.complete and not named(t) for t in some),
            sum(not t.said for t in some),
            sum(map(surely_wrong, some)),
        )
        seconds = [t.seconds for t in some]
        times = f"{statistics.median(seconds):>7.1f} s{max(seconds):>7.1f} s"
        lines.append(f"{name:<24}{len(some):>9}" + "".join(f"{count:>9}" for count in counts) + times)
    lines.append(f"first: {share(sum(map(named, trials)), len(trials))}")
    for t in [t for t in trials if not named(t)][:most]:
        words = ", ".join(["sure" if t.sure else "not sure", *([] if t.complete else ["cut off"])])
        lines.append(f"  {t.case}\n    {t.name}: rank {t.rank}, {words}, {t.seconds:.1f} s: {t.said}")
    return lines
