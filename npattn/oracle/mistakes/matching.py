"""The mistakes whose results a kernel's are: passes with one mistake each, or two, the likeliest first."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from npattn.oracle.mistakes.candidates import Candidate, Passes, are_apart
from npattn.oracle.mistakes.distances import Misfit
from npattn.oracle.mistakes.locating import Place, locate
from npattn.oracle.mistakes.mistake import Mistake
from npattn.oracle.mistakes.ordering import FORWARD, Fed, Order, calls_in, with_every
from npattn.oracle.mistakes.planting import Run, Site, sites
from npattn.oracle.mistakes.running import MOST_GROWTH, NEARER, UNFIT, Runner, TooFarError, run_with
from npattn.oracle.mistakes.screening import Screen, is_worth_screening
from npattn.oracle.steps import feeds_of, is_backward, looks_like_step

if TYPE_CHECKING:
    from npattn.oracle.case import Case

__all__ = ["SECONDS", "Search"]

SECONDS = 4.0
"""Time that a search may take."""
FOR_ROUNDINGS = 0.4
"""Share of the time that is kept at most for passes in narrower arithmetic, which are slow."""
ROUNDED = 5.0
"""How much longer all of those take together than the first pass in which calls are listed."""
FOR_LITTLE = 0.1
"""Share of it where an output is off by more than such arithmetic makes."""
MOST_ROUNDED = 0.3
"""Error of an output, in proportion to it, that arithmetic in a narrower format makes at most."""
NARROW = "in tf32", "in bfloat16", "in float16"
"""How mistakes are named that make no larger errors."""
MOST_LEFT = 0.25
"""How far off a result may be from a mistake that explains it, in proportion to how far off the right pass is."""
MOST_LED = 5
"""Mistakes in backward, each of which explains some results, that are tried beside all that may explain the others."""
LEAST_ERROR = 0.1
"""Root mean square, in units of budget, that a pass's own errors have at least."""


class Search(Runner):
    """A search for the mistakes whose results a kernel's are.

    Parameters
    ----------
    case : Case
    results : mapping of numpy.ndarray
        By name, as the case expects them; of steps that it has among its results too.
    seconds : float
        How long it may take.
    passes : Passes, optional
        Keeps what is computed, for searches with other results of the same case.
    """

    def __init__(
        self,
        case: Case,
        results: Mapping[str, np.ndarray],
        seconds: float = SECONDS,
        passes: Passes | None = None,
    ) -> None:
        super().__init__(case, results)
        self.passes = passes
        self.screen = Screen(case, results) if passes is None and is_worth_screening(case) else None
        self.end = time.perf_counter() + seconds
        self.left = (FOR_LITTLE if self.is_far_off() else FOR_ROUNDINGS) * seconds
        self.deadline = self.end - self.left
        self.tried: list[Candidate] = []
        self.places: dict[Mistake, list[Site]] = {}
        self.complete = True
        self.known_tags: dict[tuple[str, int], Place] | None = None
        self.errors: dict[str, float] = {}
        self.forward: dict[Any, Misfit | None] = {}
        self.grown: dict[Any, bool] = {}
        self.seen: set[Any] = set()

    @property
    def wrong(self) -> set[str]:
        """Names of the results that are not as they should be."""
        return set(self.right.distances) - self.right.within()

    @property
    def forward_wrong(self) -> bool:
        """Whether what forward gives is wrong already."""
        return any(map(is_forward, self.wrong))

    def is_far_off(self) -> bool:
        """Tell whether an output is off by more than rounding."""
        return any(
            float(np.linalg.norm(np.nan_to_num(self.ruler.results[name] - self.case.expected[name])))
            > MOST_ROUNDED * float(np.linalg.norm(np.nan_to_num(self.case.expected[name])))
            for name in self.case.upstream
            if name in self.wrong
        )

    def find_places(self, mistakes: Iterable[Mistake]) -> None:
        """Find where mistakes can stand, alone or in every call; remember what the right pass computes."""
        if self.passes is not None and self.passes.places:
            self.places, self.memory = self.passes.places, self.passes.memory
            return
        began = time.perf_counter()
        with np.errstate(all="ignore"), self.memory.at_work():
            found = sites(self.run_watched, mistakes, self.module, *self.given)
        self.deadline = self.end - min(self.left, ROUNDED * (time.perf_counter() - began))
        self.memory.settle()
        if self.screen is not None:
            self.screen.prepare()
        self.places = with_every(found, self.kinds, self.tags())
        if self.passes is not None:
            self.passes.places, self.passes.memory = self.places, self.memory

    def tags(self) -> dict[tuple[str, int], Place]:
        """Return the equation numbers of all calls."""
        if self.passes is not None:
            self.known_tags = self.passes.tags = self.passes.tags or locate(self.module, self.given)
        elif self.known_tags is None:
            self.known_tags = locate(self.module, self.given)
        return self.known_tags

    def try_mistakes(self, *mistakes: tuple[Mistake, Site], whole: bool = False) -> Candidate | None:
        """Run a pass with mistakes, the whole of it or until it is too far off; None where it can't be."""
        if self.passes is not None and mistakes in self.passes.found:
            known = self.passes.found[mistakes]
            return None if known is None else self.candidate(mistakes, known)
        stop = self.passes is None and all(one.primitive or one.way == "both" for one, _ in mistakes)
        checked = stop and not whole and all(one.primitive for one, _ in mistakes)
        if self.passes is None and len(mistakes) == 1 and changes_forward(mistakes[0][0]):
            misfit = self.forward_misfit(*mistakes[0])
            if misfit is None or not self.is_near(misfit):
                return None if misfit is None else Candidate(mistakes, misfit, whole=False)
            if not whole and not misfit.fits and not self.forward_fits_grown(*mistakes[0]):
                return Candidate(mistakes, misfit, whole=False, cut=True)
        far = None if self.screen is None else self.screen.far(mistakes, stop=stop, checked=checked)
        if far is not None:
            return far

        def run(module: Any, *given: Any) -> dict[str, np.ndarray]:
            return self.run_checked(module, *given) if checked else self.run(module, *given, stop=stop)

        wrong = run_with(run, mistakes)
        try:
            with np.errstate(all="ignore"), self.memory.at_work():
                found = wrong(self.module, *self.given)
        except TooFarError as far:
            return Candidate(mistakes, far.misfit, whole=False, cut=far.going_back)
        except UNFIT:
            found = None
        if self.passes is not None:
            self.passes.found[mistakes] = found
        if found is None:
            return None
        return self.candidate(mistakes, found)

    def forward_misfit(self, mistake: Mistake, site: Site) -> Misfit | None:
        """Measure what forward gives with a mistake, once for all its forms; None where it can't be run."""
        if mistake.primitive and self.is_behind_forward(mistake, site):
            distances, squares = self.right.distances, self.right.squares
            return Misfit(*({name: a for name, a in one.items() if is_forward(name)} for one in (distances, squares)))
        key = (str(mistake), site) if mistake.primitive else mistake.plain
        if key not in self.forward:
            place = ((in_forward(mistake), site),)
            far = None if self.screen is None else self.screen.far_forward(place)
            self.forward[key] = far or self.measured_forward(place)
        return self.forward[key]

    def is_behind_forward(self, mistake: Mistake, site: Site) -> bool:
        """Tell whether the calls that a mistake stands in are made on the way back alone."""
        made = self.calls.get(mistake.primitive, 0 if self.calls else np.inf)
        return min(calls_in(site, self.places.get(mistake, [])), default=0) >= made

    def forward_fits_grown(self, mistake: Mistake, site: Site) -> bool:
        """Tell whether forward's results may be a mistake's whose errors it makes larger, once for all its forms."""
        key = (str(mistake), site) if mistake.primitive else mistake.plain
        if key not in self.grown:
            place = ((in_forward(mistake), site),)
            exact = self.forward_of(place)
            growth = {} if exact is None else self.growth(place, exact, self.forward_alone)
            self.grown[key] = exact is not None and self.ruler.measure(exact).relative_to(growth).fits
        return self.grown[key]

    def in_output_alone(self, mistake: Mistake, site: Site) -> Candidate | None:
        """Run forward with a mistake, all of whose gradients are right: backward has read nothing of it.

        None where that can't be, or the mistake's own form says the same.
        """
        alone = dataclasses.replace(mistake, way="output")
        plain = changes_forward(mistake)
        if not (self.spares_gradients() and (plain or mistake.way == "carried")) or ((alone, site),) in self.seen:
            return None
        if plain:
            misfit = self.forward_misfit(mistake, site)
            if misfit is None or not self.is_near(misfit):
                return None
            found = self.forward_of(((in_forward(mistake), site),))
        else:
            found = self.forward_of(((mistake, site),), self.run)  # it makes results of other results
        self.seen.add(((alone, site),))
        if found is None:
            return None
        known = {name: found[name] for name in self.case.expected if name in found and is_forward(name)}
        return self.candidate(((alone, site),), dict(self.case.expected) | known)

    def spares_gradients(self) -> bool:
        """Tell whether gradients are given, and right, and what forward gives is wrong."""
        gradients = [name for name in self.right.distances if not is_forward(name)]
        return bool(gradients) and not any(name in self.wrong for name in gradients)

    def candidate(self, mistakes: tuple[tuple[Mistake, Site], ...], found: dict[str, np.ndarray]) -> Candidate:
        """Measure results; keep them if they fit."""
        misfit = self.ruler.measure(found)
        if not misfit.fits and self.is_near(misfit) and self.explains(found):
            misfit = misfit.relative_to(self.growth(mistakes, found))
        if misfit.fits and not self.explains(found):
            misfit = misfit.too_far()
        close = misfit.worst <= NEARER * self.right.worst
        return Candidate(mistakes, misfit, found if misfit.fits else {}, halves=close and self.explains(found, NEARER))

    def explains(self, exact: Mapping[str, np.ndarray], most: float = MOST_LEFT) -> bool:
        """Tell whether a mistake leaves but a share of what is wrong, however large its own errors may be."""
        left = self.ruler.measure(exact, grown=False).distances
        return all(left[name] <= max(1.0, most * self.right.distances[name]) for name in self.wrong & left.keys())

    def growth(
        self, mistakes: tuple[tuple[Mistake, Site], ...], exact: Mapping[str, np.ndarray], run: Run | None = None
    ) -> dict[str, float]:
        """Measure by what factor a mistake makes the errors of results larger: by one pass in float32, of `run`."""
        if self.passes is not None and mistakes in self.passes.growths:
            return self.passes.growths[mistakes]
        if not self.errors:
            self.errors = self.errors_in_float32((), self.case.expected)
        mistaken = self.errors_in_float32(mistakes, exact, run)
        # A pass whose float32 results are exact by luck has errors of some size in a format.
        least = LEAST_ERROR * 2.0 ** (self.case.format.operand_precision - 24)
        found = {
            name: float(np.clip(mistaken[name] / max(right, least), 1, MOST_GROWTH))
            for name, right in self.errors.items()
            if np.isfinite(mistaken.get(name, np.nan))
        }
        if self.passes is not None:
            self.passes.growths[mistakes] = found
        return found

    def errors_in_float32(
        self, mistakes: tuple[tuple[Mistake, Site], ...], exact: Mapping[str, np.ndarray], run: Run | None = None
    ) -> dict[str, float]:
        """Return the root mean square of the errors of a pass in float32, in units of budget."""
        given = self.given.each(lambda a: a.astype(np.float32))
        with np.errstate(all="ignore"):
            results = run_with(run or self.run, mistakes)(self.module, *given)
        measured = {name: np.asarray(results[name], np.float64) for name in self.ruler.results if name in results}
        return {name: self.ruler.error(name, a, np.asarray(exact[name])) for name, a in measured.items()}

    def fed_from(self) -> Fed:
        """Name the results that are made from what each call's line computes: forward and back, and back alone."""
        try:
            feeds = feeds_of(self.module, self.given)
        except UNFIT:
            return {}  # a system's own code that no such array goes through

        def fed(tag: str) -> set[str]:
            return {name for node, names in feeds.items() if node.startswith(f"{tag} ") for name in names}

        calls = self.tags().items()
        return {
            call: (fed(place.tag) | fed(place.back_tag), fed(place.back_tag))
            for call, place in calls
            if place.tag and place.back_tag
        }

    def order(self) -> Order:
        """Return the order in which mistakes are tried."""
        return Order(
            self.places,
            self.calls,
            self.fed_from(),
            wrong=self.wrong,
            given=set(self.right.distances),
            forward_wrong=self.forward_wrong,
        )

    def singles(self) -> list[Candidate]:
        """Try mistakes alone, as long as there is time."""
        order = self.order()
        far = self.is_far_off()
        places = [place for place in order.one_by_one() if not (far and place[0].name.endswith(NARROW))]
        numbers = {place: number for number, place in enumerate(places)}
        for group in order.in_turn(places):
            fitting: list[Candidate] = []
            for place in group:
                if time.perf_counter() > (self.end if fitting else self.deadline):
                    self.complete = False
                    break
                tried = [self.try_mistakes(place), self.in_output_alone(*place)]
                found = [one for one in tried if one is not None]
                self.tried += found
                fitting += [one for one in found if one.misfit.fits]
            if fitting:
                return sorted(fitting, key=lambda one: numbers.get(one.mistakes[0], 0))
        return []

    def pairs(self, most: int = 40) -> list[Candidate]:
        """Try pairs of mistakes in different places that together explain all that is wrong."""
        self.finish()
        partial = [one for one in self.tried if self.explained(one)]
        partial.sort(key=lambda one: (-len(one.misfit.within()), one.misfit.worst))
        order, found = self.order(), list[Candidate]()
        for i, one in enumerate(partial[:most]):
            beside = [other for other in partial[:i] if self.explained(one) | self.explained(other) == self.wrong]
            for other in beside + self.behind(one, order if i < MOST_LED else None):
                if time.perf_counter() > self.deadline:
                    self.complete = False
                    return found
                if are_apart(one, other):
                    pair = self.try_mistakes(*other.mistakes, *one.mistakes)
                    if pair is not None and pair.misfit.fits:
                        found.append(pair)
            if found:
                break
        return found

    def finish(self) -> None:
        """Run to the end what was left where the first result was off: it may explain others."""
        for i, one in enumerate(self.tried):
            if time.perf_counter() > self.deadline:
                self.complete = False
                break
            if one.cut:
                self.tried[i] = self.try_mistakes(*one.mistakes, whole=True) or one

    def behind(self, one: Candidate, order: Order | None) -> list[Candidate]:
        """List mistakes in backward that may stand beside one: whose forward is met, or that explains some results.

        In backward alone, those that all feed what the first leaves wrong; none without an order.
        """
        late = [mistake for mistake in self.places if mistake.way == "backward"]
        places = [(mistake, site) for mistake in late for site in self.places[mistake]]
        if not self.forward_wrong and order is not None:
            rest = self.wrong - self.explained(one)
            places = [place for place in places if rest <= (order.feeds(*place) or set())]
        elif not (self.forward_wrong and self.forward_met(one)):
            return []
        return [Candidate((place,), one.misfit) for place in places]

    def forward_met(self, one: Candidate) -> bool:
        """Tell whether all that forward gives is that of a mistake."""
        return all(d <= 1 for name, d in one.misfit.distances.items() if is_forward(name))

    def explained(self, one: Candidate) -> set[str]:
        """Name the wrong results that are those of a mistake."""
        return (self.wrong & one.misfit.within()) if one.whole else set()


def changes_forward(mistake: Mistake) -> bool:
    """Tell whether forward's results are those of `plain`, or of the mistake itself."""
    return mistake.way in FORWARD and bool(mistake.primitive or mistake.plain)


def in_forward(mistake: Mistake) -> Mistake:
    """Make the mistake at the least cost that gives the same forward."""
    return dataclasses.replace(mistake, apply=mistake.plain or mistake.apply)


def is_forward(name: str) -> bool:
    """Tell whether a result, or a step, is one of the way forward."""
    return not (is_backward(name) if looks_like_step(name) else name.endswith(".grad"))
