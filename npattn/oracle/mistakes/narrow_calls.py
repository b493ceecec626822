"""Which call of a primitive is in a narrower format: by how much of a kernel's errors its roundings make.

Rounding to nearest is no chance: of exact numbers that are known it makes errors that are known, element by element.
A kernel that rounds at a step has these, but for a few that flip. What a pass with the rounding leaves of the kernel's
errors tells how likely the step and the format are, as for every other mistake.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterator

import numpy as np

from npattn.oracle.formats import FORMATS
from npattn.oracle.mistakes.candidates import Candidate
from npattn.oracle.mistakes.distances import Misfit
from npattn.oracle.mistakes.matching import Search, is_forward
from npattn.oracle.mistakes.mistake import Mistake
from npattn.oracle.mistakes.narrowing import BACKWARD, at_call, at_pass, backs_of, forms_of, in_backward
from npattn.oracle.mistakes.planting import Site

__all__ = ["MIN_LOG_RATIO", "NARROW", "narrow_calls", "narrower_alike"]

NARROW = "bfloat16", "float16", "tf32"
"""Formats that are looked for, the coarsest first: it tells how large errors of the others are."""
MIN_ERROR_RATIO = 8.0
"""By how much errors of the others are smaller."""
MAX_ERROR_FACTOR = 2.5
"""Factor by which errors may be larger or smaller than a rounding makes, which come from one part alone."""
MAX_SHARE_LEFT = 0.6
"""Share of the errors, root mean square, that a rounding leaves of those that it is looked at closely for."""
MAX_SHARE_LEFT_SURELY = 0.3
"""Share that it leaves of what forward gives, or of what is wrong where that is right, to be named surely."""
SHARE_LEFT_BY_NONE = 0.1
"""Share that nothing but the very roundings leaves of what forward gives."""
SHARE_LEFT_BEHIND = 0.85
"""Share that it leaves of gradients then: roundings on the way back, of which kernels have many, are others."""
FORWARD_TIME_SHARE = 0.6
"""Share of the time left that is taken for them at most."""
MOST_FOLLOWED = 5
"""Forms of forward that are carried back, beside those that leave as little as the first."""
MOST_SAME = 12
"""Those at most, with the others."""
MIN_LOG_RATIO = 6.0
"""Logarithm of how much likelier one must be than another for the two to be told apart."""
MAX_SHARE_DIFFERENCE = 1e-3
"""Difference of the shares that two leave, from which they are not the same in forward."""
MIN_BITS = 10.0
"""How much errors must say beyond what it takes to choose among all that were tried."""
MAX_FEW_NUMBERS = 8
"""Numbers that are too few to be asked by themselves, where there are others."""

Place = tuple[Mistake, Site]


class Errors:
    """A kernel's errors, beside those that passes make.

    Parameters
    ----------
    search : Search
    """

    def __init__(self, search: Search) -> None:
        self.search = search
        self.forward = {name for name in search.wrong if is_forward(name)}
        self.told = self.forward or search.wrong
        self.tried = 0
        self.complete = True

    def has_time(self, until: float) -> bool:
        """Tell whether there is time left; what is not tried then is remembered."""
        if self.search.clock.now() > until:
            self.complete = self.search.complete = False
            return False
        return True

    def measure(self, found: dict[str, np.ndarray]) -> Misfit:
        """Measure what a pass leaves of the errors, in units of the right results' budget."""
        return self.search.ruler.measure(found, grown=False)

    def left(self, misfit: Misfit, name: str) -> float:
        """Return the share of a result's errors that a pass leaves."""
        return math.sqrt(misfit.squares[name] / max(self.search.right.squares[name], 1e-30))

    def most_left(self, misfit: Misfit, names: set[str]) -> float:
        """Return the largest share of errors that is left of results of several numbers."""
        case = self.search.case
        told = [name for name in names if case.expected[name].size >= MAX_FEW_NUMBERS] or names
        return max((self.left(misfit, name) for name in told), default=math.inf)

    def likelihood(self, misfit: Misfit, names: Collection[str] = ()) -> float:
        """Return the logarithm of how much likelier a pass makes results, or some, than the right one does."""
        squares = {name: a for name, a in misfit.squares.items() if not names or name in names}
        return self.search.ruler.better(Misfit({}, squares), self.search.right)

    def are_explained(self, misfit: Misfit) -> bool:
        """Tell whether a pass leaves so little that the errors are surely its own, of all that there are."""
        left = self.most_left(misfit, self.told)
        enough = left <= MAX_SHARE_LEFT_SURELY and self.most_left(misfit, self.search.wrong) <= SHARE_LEFT_BEHIND
        bits = self.likelihood(misfit, self.told) / math.log(2)
        return (
            self.complete and (enough or left <= SHARE_LEFT_BY_NONE) and bits > math.log2(max(self.tried, 2)) + MIN_BITS
        )

    def size(self, found: dict[str, np.ndarray]) -> float:
        """Return how large the errors that a pass makes are in forward, in proportion to the kernel's."""
        ruler, case = self.search.ruler, self.search.case
        made = [
            ruler.distance(n, np.asarray(found[n], np.float64), case.expected[n], grown=False)[1] for n in self.forward
        ]
        kernel = [self.search.right.squares[name] for name in self.forward]
        return math.sqrt(sum(made) / max(sum(kernel), 1e-30))


def narrow_calls(search: Search) -> tuple[list[Candidate], bool]:
    """Look for calls in a narrower format whose roundings make a kernel's errors.

    Parameters
    ----------
    search : Search

    Returns
    -------
    list of Candidate
        The likeliest, and those that can't be told apart from it.
    bool
        Whether it is sure.
    """
    errors = Errors(search)
    if errors.forward:
        groups = [list(carried_back(search, errors, start)) for start in followed(search, errors)]
        found = [max(group, key=lambda one: errors.likelihood(one.misfit)) for group in groups if group]
    else:
        found = [one for place in backward_alone(search, errors) if (one := tried(search, errors, place)) is not None]
    ranked = sorted(found, key=lambda one: -errors.likelihood(one.misfit))
    if not ranked or errors.most_left(ranked[0].misfit, errors.told) > MAX_SHARE_LEFT:
        return [], False
    best = ranked[0]

    def is_alike(one: Candidate) -> bool:
        """Tell whether it is as likely; how much of what comes back is narrow says nothing of a step of forward."""
        near = (
            abs(errors.most_left(one.misfit, errors.told) - errors.most_left(best.misfit, errors.told))
            < MAX_SHARE_DIFFERENCE
        )
        apart = errors.likelihood(best.misfit) - errors.likelihood(one.misfit)
        return apart < MIN_LOG_RATIO or (near and bool(errors.forward))

    return [as_known(search, one) for one in ranked if is_alike(one)], errors.are_explained(best.misfit)


def narrower_alike(search: Search, best: Candidate) -> tuple[list[Candidate], bool]:
    """Look for calls in a narrower format that are as likely as a mistake of the catalogue that is one itself.

    Parameters
    ----------
    search : Search
    best : Candidate

    Returns
    -------
    list of Candidate
    bool
        Whether there was time to try all.
    """
    before, search.complete = search.complete, True
    found, _ = narrow_calls(search)
    complete, search.complete = search.complete, before
    known = {(str(mistake), site) for mistake, site in best.mistakes}
    others = [
        dataclasses.replace(one, misfit=search.ruler.measure(one.results))  # in the units of what the catalogue's are
        for one in found
        if not known & {(str(mistake), site) for mistake, site in one.mistakes}
    ]
    return [one for one in others if search.ruler.better(best.misfit, one.misfit) < MIN_LOG_RATIO], complete


def followed(search: Search, errors: Errors) -> list[tuple[str, Site, str, tuple[str, ...]]]:
    """Choose what of forward is carried back: what leaves the least, and all that leaves as little as the first."""
    found = sorted(from_forward(search, errors), key=lambda pair: pair[0])
    same = sum(left - found[0][0] < MAX_SHARE_DIFFERENCE for left, _ in found)
    errors.complete = errors.complete and same <= MOST_SAME
    return [start for _, start in found[: min(max(same, MOST_FOLLOWED), MOST_SAME)]]


def formats_of(search: Search) -> list[str]:
    """List the formats that are narrower than the case's."""
    own = search.case.format
    pairs = ((FORMATS[name], name) for name in NARROW)
    return [n for f, n in pairs if f.precision < own.precision or f.operand_precision < own.operand_precision]


def sites_of(search: Search) -> Iterator[tuple[str, Site]]:
    """Yield the calls of forward, each alone, and all of a primitive's where there are several."""
    for name, count in search.calls.items():
        yield from ((name, number) for number in range(count))
        if count > 1:
            yield name, tuple(range(count))


def from_forward(search: Search, errors: Errors) -> Iterator[tuple[float, tuple[str, Site, str, tuple[str, ...]]]]:
    """Yield what explains what forward gives: what it leaves of the errors, and the call, the format and the form."""
    formats, now = formats_of(search), search.clock.now()
    until = now + FORWARD_TIME_SHARE * (search.end - now)
    for name, site in [("", 0), *sites_of(search)] if formats else ():
        for form in forms_of(name, formats[0]):
            size = math.nan
            for format in formats:
                if not errors.has_time(until):
                    return
                expected = size if format == formats[0] else size / MIN_ERROR_RATIO
                if not (
                    math.isnan(size) or 1 / MAX_ERROR_FACTOR <= expected <= MAX_ERROR_FACTOR
                ) or form not in forms_of(name, format):
                    continue
                errors.tried += 1
                place = mistake_of(name, site, format, form, ())
                run = search.run if not name else None
                found = search.forward_of((place,), run)
                if found is None:
                    break
                found = {n: found[n] for n in search.ruler.results if n in found and is_forward(n)}
                size = errors.size(found) if format == formats[0] else size
                left = errors.most_left(errors.measure(found), errors.forward)
                if left <= MAX_SHARE_LEFT:
                    yield left, (name, site, format, form)


def mistake_of(name: str, site: Site, format: str, form: tuple[str, ...], back: tuple[str, ...]) -> Place:
    """Make the mistake of a call, or without a name of a whole pass."""
    return (at_call(name, format, form, back) if name else at_pass(format, form, back)), site


def as_known(search: Search, one: Candidate) -> Candidate:
    """Take the catalogue's own mistake where it has one of the name."""
    (mistake, site), *_ = one.mistakes
    names = (m for m in search.places if str(m) == str(mistake) and m.way in ("both", "forward"))
    known = min(names, key=lambda m: m.way, default=mistake)
    return dataclasses.replace(one, mistakes=((known, site),))


def carried_back(search: Search, errors: Errors, start: tuple[str, Site, str, tuple[str, ...]]) -> Iterator[Candidate]:
    """Yield the ways in which what is narrow in forward may be in backward."""
    name, _, _, form = start
    for back in backs_of(name, form):
        if not errors.has_time(search.end):
            return
        found = tried(search, errors, mistake_of(*start, back))
        if found is not None:
            yield found


def backward_alone(search: Search, errors: Errors) -> Iterator[Place]:
    """Yield calls whose gradients are narrow."""
    for name, site in sites_of(search):
        for format in formats_of(search):
            for back in BACKWARD[1:]:
                if not errors.has_time(search.end):
                    return
                if format != "tf32" or back == ("dy",):
                    yield in_backward(name, format, back=back), site


def tried(search: Search, errors: Errors, place: Place) -> Candidate | None:
    """Measure a whole pass with one of them."""
    errors.tried += 1
    found = search.forward_of((place,), search.run)
    if found is None:
        return None
    misfit = errors.measure(
        {name: np.asarray(found[name], np.float64) for name in search.ruler.results if name in found}
    )
    return dataclasses.replace(Candidate((place,), misfit), results=found)
