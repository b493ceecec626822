"""The mistakes whose results a kernel's are: passes with one mistake each, the likeliest first."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from npattn.oracle.formats import FORMATS
from npattn.oracle.mistakes.candidates import Candidate, Passes
from npattn.oracle.mistakes.clock import Clock
from npattn.oracle.mistakes.distances import Misfit
from npattn.oracle.mistakes.feeding import fed_by_calls
from npattn.oracle.mistakes.locating import Place, locate
from npattn.oracle.mistakes.measuring import Measurer
from npattn.oracle.mistakes.mistake import Mistake
from npattn.oracle.mistakes.ordering import Fed, Order, with_every
from npattn.oracle.mistakes.planting import Site, sites
from npattn.oracle.mistakes.running import UNFIT, changes_forward, forward_key, in_forward, is_forward
from npattn.oracle.mistakes.screening import Screen, is_worth_screening
from npattn.oracle.threads import PassThreads, pass_threads

if TYPE_CHECKING:
    from npattn.oracle.case import Case

__all__ = ["SECONDS", "Search"]

SECONDS = 4.0
"""Time that a search may take of the processor."""
ROUNDINGS_TIME_SHARE = 0.3
"""Share of the time that is kept at most for passes in narrower arithmetic, which are slow."""
ROUNDED_TIME_RATIO = 5.0
"""How much longer all of those take together than the first pass in which calls are listed."""
LITTLE_TIME_SHARE = 0.1
"""Share of it where an output is off by more than such arithmetic makes."""
MOST_ROUNDED, MOST_ROUNDED_BACK = 0.3, 0.5
"""Error of an output, and of an input's gradient, in proportion, that arithmetic in a narrower format makes at most."""
NARROW = "in tf32", "in bfloat16", "in float16"
"""How mistakes are named that make no larger errors."""
MAX_LITTLE_DISTANCE = 10.0
"""Distance of the right pass up to which they come first: most others would make larger errors."""
NUM_AHEAD = 16
"""Mistakes that are tried at once, on all cores."""


class Search(Measurer):
    """A search for the mistakes whose results a kernel's are.

    Parameters
    ----------
    case : Case
    results : mapping of numpy.ndarray
        By name, as the case expects them; of steps that it has among its results too.
    seconds : float
        How long it may take, as a `Clock` of the processor's time has it.
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
        super().__init__(case, results, passes)
        self.screen = Screen(case, results) if passes is None and is_worth_screening(case) else None
        self.clock, self.end = Clock(), seconds
        self.left = (LITTLE_TIME_SHARE if self.is_far_off() else ROUNDINGS_TIME_SHARE) * seconds
        self.deadline = self.end - self.left
        self.tried: list[Candidate] = []
        self.looked_at = self.possible = 0
        self.complete = True
        self.known_tags: dict[tuple[str, int], Place] | None = None
        self.screened: dict[Any, Candidate | None] = {}
        self.exactly: dict[Any, Candidate | None] = {}
        self.grown: dict[Any, bool] = {}
        self.seen: set[Any] = set()

    @property
    def forward_wrong(self) -> bool:
        """Whether what forward gives is wrong already."""
        return any(map(is_forward, self.wrong))

    def is_far_off(self) -> bool:
        """Tell whether an output or an input's gradient is off by more than rounding."""
        most = dict.fromkeys(self.case.upstream, MOST_ROUNDED)
        most |= {f"{name}.grad": MOST_ROUNDED_BACK for name in self.case.inputs}
        return any(
            float(np.linalg.norm(np.nan_to_num(self.ruler.results[name] - self.case.expected[name])))
            > share * float(np.linalg.norm(np.nan_to_num(self.case.expected[name])))
            for name, share in most.items()
            if name in self.wrong
        )

    def find_places(self, mistakes: Iterable[Mistake]) -> None:
        """Find where mistakes can stand, alone or in every call; remember what the right pass computes."""
        if self.passes is not None and self.passes.places:
            self.places, self.memory, self.calls = self.passes.places, self.passes.memory, self.passes.calls
            return
        began = self.clock.now()
        with np.errstate(all="ignore"), self.memory.at_work():
            found = sites(self.run_watched, mistakes, self.module, *self.given)
        self.deadline = self.end - min(self.left, ROUNDED_TIME_RATIO * (self.clock.now() - began))
        self.memory.settle()
        self.places = with_every(found, self.kinds, self.tags())
        if self.screen is not None:
            self.screen.prepare(self.places)
        if self.passes is not None:
            self.passes.places, self.passes.memory, self.passes.calls = self.places, self.memory, self.calls

    def tags(self) -> dict[tuple[str, int], Place]:
        """Return the equation numbers of all calls."""
        if self.passes is not None:
            self.known_tags = self.passes.tags = self.passes.tags or locate(self.module, self.given)
        elif self.known_tags is None:
            self.known_tags = locate(self.module, self.given)
        return self.known_tags

    def try_mistakes(self, *mistakes: tuple[Mistake, Site], whole: bool = False) -> Candidate | None:
        """Run a pass with mistakes, the whole of it or until it is too far off; None where it can't be."""
        if self.passes is None:
            return self.far_off(mistakes, whole=whole) or self.tried_exactly(mistakes, whole=whole)
        if mistakes not in self.passes.found:
            self.passes.found[mistakes] = self.forward_of(mistakes, self.run)
        known = self.passes.found[mistakes]
        return None if known is None else self.candidate(mistakes, known)

    def far_off(self, mistakes: tuple[tuple[Mistake, Site], ...], *, whole: bool = False) -> Candidate | None:
        """Tell by passes in float32 how far off mistakes are; None where that is not clear, or nothing is screened."""
        if self.screen is None:
            return None
        if (mistakes, whole) not in self.screened:
            self.screened[mistakes, whole] = self.screen.look(mistakes, whole=whole)
        return self.screened[mistakes, whole]

    def tried_exactly(self, mistakes: tuple[tuple[Mistake, Site], ...], *, whole: bool = False) -> Candidate | None:
        """Run a pass with mistakes in float64, once."""
        if (mistakes, whole) not in self.exactly:
            self.exactly[mistakes, whole] = self.run_exactly(mistakes, whole=whole)
        return self.exactly[mistakes, whole]

    def run_exactly(self, mistakes: tuple[tuple[Mistake, Site], ...], *, whole: bool) -> Candidate | None:
        """Run a pass with mistakes in float64."""
        if len(mistakes) == 1 and changes_forward(mistakes[0][0]):
            misfit = self.forward_misfit(*mistakes[0])
            if misfit is None or not self.is_near(misfit):
                return None if misfit is None else Candidate(mistakes, misfit, whole=False)
            if not whole and not misfit.fits and not self.forward_fits_grown(*mistakes[0]):
                return Candidate(mistakes, misfit, whole=False, cut=True)
        found = self.run_until_far(mistakes, whole=whole)
        return self.candidate(mistakes, found) if isinstance(found, dict) else found

    def forward_misfit(self, mistake: Mistake, site: Site) -> Misfit | None:
        """Measure what forward gives with a mistake, once for all its forms, as exactly as need be."""
        misfit = None if self.screen is None else self.screen.forward_misfit(mistake, site)
        if misfit is not None and self.screen is not None and self.screen.is_far(misfit):
            return misfit
        return super().forward_misfit(mistake, site)

    def forward_fits_grown(self, mistake: Mistake, site: Site) -> bool:
        """Tell whether forward's results may be a mistake's whose errors it makes larger, once for all its forms."""
        key = forward_key(mistake, site)
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

    def fed_from(self) -> Fed:
        """Name the results that are made from what each call computes: forward and back, and back alone."""
        try:
            return fed_by_calls(self.recorded(self.module), self.given)
        except UNFIT:
            return {}  # a system's own code that no such array goes through

    def order(self) -> Order:
        """Return the order in which mistakes are tried."""
        precision = self.case.format.operand_precision
        return Order(
            self.places,
            self.calls,
            self.fed_from(),
            wrong=self.wrong,
            given=set(self.right.distances),
            forward_wrong=self.forward_wrong,
            first=NARROW if self.right.worst <= MAX_LITTLE_DISTANCE else (),
            last=tuple(f"in {name}" for name, one in FORMATS.items() if one.operand_precision >= precision),
        )

    def singles(self) -> list[Candidate]:
        """Try mistakes alone, as long as there is time."""
        order = self.order()
        far = self.is_far_off()
        places = [place for place in order.one_by_one() if not (far and place[0].name.endswith(NARROW))]
        numbers = {place: number for number, place in enumerate(places)}
        self.possible = len(places)
        with contextlib.nullcontext() if self.screen is None else pass_threads() as threads:
            for group in order.in_turn(places):
                fitting = self.fitting(group, threads)
                if fitting:
                    return sorted(fitting, key=lambda one: numbers.get(one.mistakes[0], 0))
        return []

    def fitting(self, places: Sequence[tuple[Mistake, Site]], threads: PassThreads | None) -> list[Candidate]:
        """Try mistakes one by one, as long as there is time: those that fit."""
        fitting: list[Candidate] = []
        places, met = list(places), set[Any]()
        for i in range(len(places)):
            place, key = places[i], forward_key(*places[i])
            until = self.end if fitting else self.deadline
            if threads is not None and i % NUM_AHEAD == 0:
                self.look_ahead(places[i : i + NUM_AHEAD], threads, until)
            if self.clock.now() > until:
                self.complete = False
                break
            self.looked_at += 1
            tried = [self.try_mistakes(place), self.in_output_alone(*place)]
            found = [one for one in tried if one is not None]
            self.tried += found
            fitting += [one for one in found if one.misfit.fits]
            if key not in met and self.has_met_forward(place):
                met.add(key)
                places[i + 1 :] = sorted(places[i + 1 :], key=lambda other: forward_key(*other) != key)
        return fitting

    def has_met_forward(self, place: tuple[Mistake, Site]) -> bool:
        """Tell whether forward is wrong, and is that of a mistake: what else gives the same forward is tried next."""
        misfit = self.forward.get(forward_key(*place)) if changes_forward(place[0]) else None
        return self.forward_wrong and misfit is not None and misfit.fits

    def look_ahead(self, places: Sequence[tuple[Mistake, Site]], threads: PassThreads, until: float) -> None:
        """Try the next mistakes on all cores, each forward in float32 but once; what is found is the same on one."""
        forward = {forward_key(*place): place for place in places if changes_forward(place[0])}
        screen, look = self.screen, functools.partial(self.clock.each_until, until, threads)
        if screen is not None:
            look([functools.partial(screen.forward_misfit, *place) for place in forward.values()])
            look([functools.partial(self.far_off, (place,)) for place in places])
            near = [place for place in places if self.screened.get(((place,), False)) is None]
            look([functools.partial(self.tried_exactly, (place,)) for place in near])
