"""The diagnosis of wrong results: what was searched, and what of it can be said."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from npattn.foreign_arrays import to_numpy
from npattn.ops.context import apart
from npattn.ops.primitive import Primitive
from npattn.oracle.budgets import Given, named_results
from npattn.oracle.diagnosis import reads_exactly
from npattn.oracle.golden_files.described import Described
from npattn.oracle.judging import require_results
from npattn.oracle.mistakes.blurring import blurring
from npattn.oracle.mistakes.candidates import Candidate, Passes, ranked
from npattn.oracle.mistakes.catalogue import MISTAKES
from npattn.oracle.mistakes.code_masks import rules_of_masks
from npattn.oracle.mistakes.distances import Ruler
from npattn.oracle.mistakes.index_lines import rules_of_indices
from npattn.oracle.mistakes.lines import rules_of_lines
from npattn.oracle.mistakes.locating import Place
from npattn.oracle.mistakes.matching import SECONDS, Search
from npattn.oracle.mistakes.mistake import Mistake
from npattn.oracle.mistakes.narrow_calls import narrower_alike
from npattn.oracle.mistakes.ordering import calls_in
from npattn.oracle.mistakes.pairing import pairs
from npattn.oracle.mistakes.planting import answering
from npattn.oracle.mistakes.plumbing import is_plumbing
from npattn.oracle.mistakes.roundings import roundings
from npattn.oracle.mistakes.rules import rules_of
from npattn.oracle.mistakes.running import UNFIT, run_with
from npattn.oracle.mistakes.settings import rules_of_settings
from npattn.oracle.mistakes.suspects import Diagnosis, Suspect, enumerate_names
from npattn.oracle.mistakes.twins import is_narrow, unlike
from npattn.oracle.steps import Recorded
from npattn.oracle.steps.recorded import is_judged, name_steps
from npattn.oracle.systems import is_known
from npattn.oracle.threads import leaving_no_limit
from npattn.tracing import Step

if TYPE_CHECKING:
    from npattn.oracle.case import Case

__all__ = ["diagnose"]

MIN_LOG_RATIO = 6.0
"""Logarithm of how much likelier the first suspect must be than another for the two to be told apart."""
MIN_BITS = 10.0
"""How much results must say, beyond what it takes to choose among all mistakes tried, for one to be named surely."""
MOST_MOVED, NOT_FINITE = 1e12, 4.0
"""What one number counts for at most, by how much nearer in the mean square it is to a mistake's: that of a mistake
that gives NaN too says no more than a bit."""
MAX_FEW_NUMBERS = 8
"""Wrong numbers whose size says little of the arithmetic that made it."""
MAX_NEAREST_DISTANCE = 3.0
"""Distance up to which a mistake that does not fit is told as the nearest: one further off is another."""
MAX_SLIGHT_DISTANCE = 1.5
"""Distance up to which a single mistake that does not fit is told before two that do."""
MASKS_TIME_SHARE = 0.2
"""Share of the time in which masks are looked for in a system's code."""
MOST_COMPARED = 4
"""Mistakes whose steps are compared."""
MIN_DIFFERENCE = 0.05
"""Difference of a step's values, in proportion to them, that every format shows."""
UNREAD = "no mistake was tried: what is wrong has no numbers that can be laid beside the expected ones"
"""What is said where all that is wrong is of another shape, or of another kind of numbers."""


@apart
@leaving_no_limit
def diagnose(
    case: Case, results: Mapping[str, Any], seconds: float = SECONDS, passes: Passes | None = None
) -> Diagnosis:
    """Look for the mistakes whose results a kernel's are.

    Parameters
    ----------
    case : Case
    results : mapping of str to array
        As `Case.compare` takes them, steps too. What is None or can't be read is left out.
    seconds : float
        How long the search may take of the processor; where others use it too, up to five times as long passes.
    passes : Passes, optional
        Keeps what is computed, for the next results of the same case.

    Returns
    -------
    Diagnosis

    Raises
    ------
    TypeError, ValueError
        As `Case.compare` raises them of results.
    """
    with np.errstate(all="ignore"):  # results may be NaN, infinite or beyond what float64 squares
        results, judged_by = require_results(f"{case!r}.diagnose", case, results)
        read = readable(judged_by, results)
        search = Search(judged_by, read, seconds, passes)
        if not search.wrong:
            unread = [name for name in results if name not in read]
            return Diagnosis(right=not unread, untried=why_untried(results, unread) if unread else "")
        if isinstance(case.module, Described):
            name = case.module.name
            return Diagnosis(
                untried=f"the file holds no code of {name}, so no mistakes are tried",
                hints=(f"npattn.oracle.load with systems=[{name}], the class, has them tried",),
            )
        found = diagnose_wrong(search, passes)
        return found if search.complete else dataclasses.replace(found, **what_is_left(search))


def diagnose_wrong(search: Search, passes: Passes | None) -> Diagnosis:
    """Look for the mistakes whose results a search has."""
    search.find_places(() if passes is not None and passes.places else [*MISTAKES, *by_rule(search)])
    fitting = search.singles()
    arithmetic, sure = ([], False) if fitting else roundings(search)
    several_images = len(next(iter(search.case.inputs.values()))) > 1
    if arithmetic:
        if all(one.results for one in arithmetic):
            arithmetic = unlike(arithmetic, several_images=several_images)
        suspects = suspects_of(search, arithmetic)
        few = sum(np.isfinite(search.case.budget[name]).sum() for name in search.wrong) < MAX_FEW_NUMBERS
        return Diagnosis(suspects=suspects, alike=len(suspects), sure=sure, complete=search.complete, few=bool(few))
    blurred = [] if fitting else blurring(search)
    fitting = fitting or blurred or pairs(search)
    if not fitting:
        nearest = nearest_single(search, MAX_NEAREST_DISTANCE)
        read = (reads_exactly(search.case, name, search.ruler.results[name]) for name in search.wrong)
        found = None if nearest is None or any(read) else suspects_of(search, [nearest])[0]
        return Diagnosis(nearest=found, complete=search.complete)
    best = unlike(ranked(search.ruler, fitting), several_images=several_images)
    single = nearest_single(search, MAX_SLIGHT_DISTANCE) if len(best[0].mistakes) > 1 else None
    if single is not None and any(single.misfit.within() & search.wrong):
        suspects = suspects_of(search, [single, *best[:7]])
        return Diagnosis(suspects=suspects, alike=len(suspects), complete=search.complete)
    all_tried = True
    if is_narrow(best[0]):
        others, all_tried = narrower_alike(search, best[0])
        best = unlike(ranked(search.ruler, [*best, *others]), several_images=several_images)
    alike = [one for one in best if search.ruler.better(best[0].misfit, one.misfit) < MIN_LOG_RATIO]
    return Diagnosis(
        suspects=suspects_of(search, best[:8]),
        alike=min(8, len(alike)),
        sure=all_tried and not blurred and says_enough(search, best[0]),
        blurred=lost_by(search, best[0]) if blurred else (),
        hints=hints(search, alike) if len(alike) > 1 else (),
        complete=search.complete,
    )


def nearest_single(search: Search, most: float) -> Candidate | None:
    """Return the mistake that comes nearest of all that were tried alone, up to a distance; None where none does."""
    near = (one for one in search.tried if one.whole and one.halves and one.misfit.worst <= most)
    return min(near, key=lambda one: one.misfit.worst, default=None)


def what_is_left(search: Search) -> dict[str, Any]:
    """Say of a search that had not time enough how far it came, and in how many seconds more is tried."""
    done, possible = search.looked_at, search.possible
    how_far = (
        f"there was time to try {done} of {possible} mistakes"
        if done < possible
        else f"there was time to try all {possible} mistakes one by one, not all pairs of them, nor roundings"
    )
    return {"unfinished": how_far, "needed": max(search.clock.needed(done, possible), math.ceil(2 * search.end))}


def why_untried(results: Mapping[str, Any], unread: Sequence[str]) -> str:
    """Say why no mistake was tried where all that is wrong is what can't be read."""
    if any(results[name] is not None for name in unread):
        return UNREAD
    verb = "is" if len(unread) == 1 else "are"
    return f"no mistake was tried: nothing is wrong but that {enumerate_names(unread)} {verb} None"


def readable(case: Case, results: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Take results as plain arrays in float64."""
    found = {}
    for name, value in results.items():
        if name in case.expected and value is not None:
            expected = case.expected[name]
            try:
                array = to_numpy(value, "it")
            except TypeError:
                continue
            if array.shape == expected.shape and not np.iscomplexobj(array):
                found[name] = array.astype(np.float64)
    return found


def by_rule(search: Search) -> list[Mistake]:
    """List mistakes made by rule, of every primitive that the system calls and of its own lines."""
    called: dict[Primitive, None] = {}

    def watch(primitive: Primitive, *_: Any) -> Any:
        called.setdefault(primitive)
        return NotImplemented

    with answering(watch), np.errstate(all="ignore"), search.memory.at_work():
        search.run(search.module, *search.given)
    of_calls = [rule for primitive in called for rule in rules_of(primitive)]
    now = search.clock.now()
    end = now + MASKS_TIME_SHARE * (search.end - now)
    masks = rules_of_masks(search.module, search.given, lambda: search.clock.now() > end)
    of_masks = [*masks, *rules_of_indices(search.module)]
    of_lines = rules_of_lines(search.module)
    if is_known(search.module):
        of_lines = [one for one in of_lines if not is_plumbing(one)]
    return [*of_calls, *rules_of_settings(search.module), *of_masks, *of_lines]


def suspects_of(search: Search, candidates: Sequence[Candidate]) -> tuple[Suspect, ...]:
    """Say where candidates stand and what they explain."""
    places = search.tags()
    wrong = [name for name in search.ruler.results if name in search.wrong]

    def suspect(one: Candidate) -> Suspect:
        mistakes = tuple(mistake for mistake, _ in one.mistakes)
        sites = [calls_in(site, search.places.get(mistake, [])) for mistake, site in one.mistakes]
        steps = tuple(step_of(places, mistake, numbers) for mistake, numbers in zip(mistakes, sites, strict=True))
        met = [name for name in wrong if one.misfit.distances.get(name, np.inf) <= 1] or wrong
        distance = one.misfit.worst if one.whole else np.inf
        return Suspect(mistakes, steps, tuple(met), distance, len(met) == len(wrong), one.twins)

    return tuple(map(suspect, candidates))


def lost_by(search: Search, one: Candidate) -> tuple[str, ...]:
    """Name the wrong results that a mistake does not explain, in order."""
    return tuple(name for name in search.ruler.results if name in search.wrong and one.misfit.distances[name] > 1)


def step_of(places: Mapping[tuple[str, int], Place], mistake: Mistake, numbers: Sequence[int]) -> str:
    """Return the tag of the line that a mistake stands in, or of all such lines."""
    own = [places[mistake.primitive, n] for n in numbers if (mistake.primitive, n) in places]
    tags = [(place.back_tag or place.tag) if mistake.way == "backward" else place.tag for place in own]
    if len(numbers) > 1:
        return f"every {', '.join(dict.fromkeys(filter(None, tags)))}"
    return tags[0] if tags else ""


def says_enough(search: Search, best: Candidate) -> bool:
    """Tell whether the results say enough to name one mistake of all that were tried."""
    ruler, bits = search.ruler, 0.0
    for name in search.wrong:
        freedom = min(search.case.freedom[name], search.case.expected[name].size)
        square = search.right.squares[name]
        moved = square / (best.misfit.squares.get(name, np.inf) + 1)
        most = MOST_MOVED if np.isfinite(square) else NOT_FINITE
        bits += 0.5 * freedom * np.log2(min(max(moved, 1.0), most))
    # What there was no time to try might have fitted as well; of pairs there are as many as of one by another.
    tried = max(len(search.tried), 2 if search.complete else sum(map(len, search.places.values())))
    return bool(bits > len(best.mistakes) * np.log2(max(tried, 2)) + MIN_BITS and ruler.results)


def hints(search: Search, alike: Sequence[Candidate]) -> tuple[str, ...]:
    """Say what would tell apart mistakes that the results given do not."""
    case, first = search.case, alike[0]
    others = {name: value for name, value in first.results.items() if name not in search.ruler.results}
    ruler = Ruler(case, {name: np.asarray(value) for name, value in others.items()})
    apart = [ruler.measure(one.results).distances for one in alike[1:]]
    telling = [name for name in others if any(distances.get(name, 0) > 1 for distances in apart)]
    if telling:
        return (f"{enumerate_names(telling)} would tell them apart: give {'it' if len(telling) == 1 else 'them'} too",)
    shape = next(iter(case.inputs.values())).shape
    ways = []
    if len({shape[-1], shape[-2:][0]}) == 1:
        ways.append("a map that is not square")
    if shape[0] == 1:
        ways.append("several images")
    if any("maximum" in mistake.name for one in alike for mistake, _ in one.mistakes):
        ways.append('the case with ties (values="ties")')
    step = telling_step(search, alike)
    if step:
        return (f"the step {step} would tell them apart: give it too, by that name",)
    return (f"{', '.join(ways) + ' or ' if ways else ''}another seed may tell them apart",)


def telling_step(search: Search, alike: Sequence[Candidate]) -> str:
    """Name the first step whose value is not the same in mistakes that the results do not tell apart."""
    seen: list[dict[str, np.ndarray]] = []

    def read(steps: Sequence[Step]) -> dict[str, np.ndarray]:
        named = name_steps(steps).items()
        seen[-1].update({name: np.array(step.value, np.float64) for name, step in named if is_judged(step.value)})
        return {}

    def run(module: Any, *given: Any) -> dict[str, np.ndarray]:
        return named_results(Recorded(module, read), Given(*given))

    for one in alike[:MOST_COMPARED]:
        seen.append({})
        try:
            with np.errstate(all="ignore"):
                run_with(run, one.mistakes)(search.module, *search.given)
        except UNFIT:
            return ""
    first, *others = seen
    for name, value in first.items():
        if name not in search.ruler.results and any(are_unlike(value, other.get(name)) for other in others):
            return name
    return ""


def are_unlike(one: np.ndarray, other: np.ndarray | None) -> bool:
    """Tell whether two values of a step are clearly not the same."""
    if other is None or one.shape != other.shape:
        return other is not None
    with np.errstate(all="ignore"):
        return bool(np.nanmax(np.abs(one - other), initial=0) > MIN_DIFFERENCE * np.nanmax(np.abs(one), initial=0))
