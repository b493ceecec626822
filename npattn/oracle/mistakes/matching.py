"""The mistakes whose results a kernel's are: passes with one mistake each, run exactly, the likeliest first."""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from npattn.oracle.budgets import Given, named_results
from npattn.oracle.mistakes.distances import Misfit, Ruler
from npattn.oracle.mistakes.forwarding import Instead
from npattn.oracle.mistakes.locating import Place, locate
from npattn.oracle.mistakes.mistake import Mistake
from npattn.oracle.mistakes.planting import EVERY, Run, answering, faulty, planted, sites
from npattn.oracle.mistakes.replaying import Memory
from npattn.oracle.mistakes.returning import Returned, results_among, watching
from npattn.oracle.steps import Recorded, feeds_of, is_backward, looks_like_step, reader_of

if TYPE_CHECKING:
    from npattn.oracle.case import Case

__all__ = ["SECONDS", "UNFIT", "Candidate", "Passes", "Search", "ranked", "run_with", "with_every"]

SECONDS = 4.0
"""Time that a search may take."""
FOR_ROUNDINGS = 0.4
"""Share of the time that is kept for passes in narrower arithmetic, which are slow."""
FOR_LITTLE = 0.1
"""Share of it where an output is off by more than such arithmetic makes."""
MOST_ROUNDED = 0.3
"""Error of an output, in proportion to it, that arithmetic in a narrower format makes at most."""
FAR = 30.0
"""Distance from which a mistake is not looked at any more; backward is not run where forward gives that already."""
NEAR = 0.1
"""How far off a mistake may be that is looked at closely, in proportion to how far off the right pass is."""
MOST_LEFT = 0.25
"""How far off a result may be from a mistake that explains it, in proportion to how far off the right pass is."""
LEAST_ERROR = 0.1
"""Root mean square, in units of budget, that a pass's own errors have at least."""
MOST_GROWTH = 100.0
"""Factor by which a mistake makes errors larger at most."""
TURNS = 8
"""Parts of the mistakes of each call that are tried before the next part of another's."""
LATE = 3
"""Turns by which mistakes of forward are late where its results are right, and those of backward where they are not."""
SUMS = "add", "accumulate", "concatenate", "split"
"""Primitives that a system calls for many reasons: a mistake is not made in every call."""


Fed = Mapping[tuple[str, int], tuple[set[str], set[str]]]
"""Results that are made from what each call's line computes: forward and back, and back alone."""
UNFIT = ValueError, TypeError, LookupError, AttributeError, ArithmeticError
"""What a pass raises whose mistake does not fit a system's shapes."""


class TooFarError(Exception):
    """What is known already is too far off, or all that is to be known: the pass need not go on."""

    def __init__(self, misfit: Misfit, *, going_back: bool = False) -> None:
        super().__init__()
        self.misfit, self.going_back = misfit, going_back


@dataclass(frozen=True, eq=False)
class Candidate:
    """A mistake, or two, in a place, and how far its results are from the kernel's.

    Attributes
    ----------
    mistakes : tuple of pair
        Each mistake, with the number of the call that it stands in.
    misfit : Misfit
    results : dict of numpy.ndarray
        The exact results of a pass with it, if they fit.
    whole : bool
        Whether backward was run too.
    cut : bool
        Whether backward was run in part.
    """

    mistakes: tuple[tuple[Mistake, int], ...]
    misfit: Misfit
    results: dict[str, np.ndarray] = field(default_factory=dict)
    whole: bool = True
    cut: bool = False


@dataclass
class Passes:
    """What searches with several results of one case have in common.

    Attributes
    ----------
    places : dict
        Calls that each mistake can stand in.
    found : dict
        Exact results of a pass, by mistakes and their calls; None where there are none.
    growths : dict
        By what they make errors larger, by the same.
    tags : dict
        As `locate` returns them.
    memory : Memory
    """

    places: dict[Mistake, list[int]] = field(default_factory=dict)
    found: dict[Any, Any] = field(default_factory=dict)
    growths: dict[Any, dict[str, float]] = field(default_factory=dict)
    tags: dict[tuple[str, int], Place] = field(default_factory=dict)
    memory: Memory = field(default_factory=Memory)


class Search:
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
        self.case, self.module = case, case.module
        steps = {name: a.shape for name, a in results.items() if looks_like_step(name)}
        self.read = reader_of(steps) if steps else None
        self.ruler = Ruler(case, results)
        self.given = Given(case.params, case.inputs, case.upstream).each(lambda a: np.array(a, np.float64))
        self.right = self.ruler.measure(case.expected)
        self.memory = Memory()
        self.passes = passes
        self.end = time.perf_counter() + seconds
        self.deadline = self.end - (FOR_LITTLE if self.is_far_off() else FOR_ROUNDINGS) * seconds
        self.tried: list[Candidate] = []
        self.places: dict[Mistake, list[int]] = {}
        self.complete = True
        self.errors: dict[str, float] = {}
        self.forward: dict[Any, Misfit | None] = {}
        self.returned: Returned = {}
        self.calls: dict[str, int] = {}

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

    def recorded(self, module: Any) -> Any:
        """Return a module whose pass has the steps that are given among its results."""
        return module if self.read is None else Recorded(module, self.read)

    def run(self, module: Any, *given: Any, stop: bool = False) -> dict[str, np.ndarray]:
        """Run a pass; with `stop`, no further than forward where that is far off."""
        recorded, passed = self.recorded(module), []

        def run_kept(*arguments: Any) -> Any:
            passed.append(recorded(*arguments))
            return passed[-1]

        watched: Any = Instead(recorded, run_kept)

        def between() -> None:
            misfit = self.ruler.measure(forward_results(passed[-1], given[2]))
            if stop and not self.is_near(misfit):
                raise TooFarError(misfit)

        return named_results(watched, Given(*given), between)

    def run_watched(self, module: Any, *given: Any) -> dict[str, np.ndarray]:
        """Run a pass, and remember which results are gradients as a primitive returns them."""
        returned: list[tuple[int, tuple[Any, ...]]] = []
        calls: collections.Counter[str] = collections.Counter()

        def count(primitive: Any, *_: Any) -> Any:
            calls[primitive.__name__] += 1
            return NotImplemented

        def run_counted(params: Any, *inputs: Any) -> Any:
            found = module(params, *inputs)
            self.calls = dict(calls)
            return found

        counted: Any = Instead(module, run_counted) if self.read is None else module
        with watching(lambda *pair: returned.append(pair)), answering(count):
            results = self.run(counted, *given)
        self.returned = results_among(returned, results, [f"{name}.grad" for name in self.case.params])
        return results

    def run_checked(self, module: Any, *given: Any) -> dict[str, np.ndarray]:
        """Run a pass no further than to the first result that is too far off."""
        farthest = max(1.0, min(FAR, NEAR * self.right.worst))

        def check(number: int, gradients: tuple[Any, ...]) -> None:
            for i, name in self.returned.get(number, ()):
                if name in self.ruler.results:
                    misfit = self.ruler.measure({name: gradients[i].reshape(self.case.expected[name].shape)})
                    if misfit.worst > farthest:
                        raise TooFarError(misfit, going_back=True)

        with watching(check):
            return self.run(module, *given, stop=True)

    def run_forward(self, module: Any, *given: Any) -> None:
        """Run forward, and raise how far off it is."""
        params, inputs, upstream = given
        found = self.recorded(module)(params, *inputs.values())
        raise TooFarError(self.ruler.measure(forward_results(found, upstream)))

    def find_places(self, mistakes: Iterable[Mistake]) -> None:
        """Find where mistakes can stand, alone or in every call; remember what the right pass computes."""
        if self.passes is not None and self.passes.places:
            self.places, self.memory = self.passes.places, self.passes.memory
            return
        with np.errstate(all="ignore"), self.memory.at_work():
            self.places = with_every(sites(self.run_watched, mistakes, self.module, *self.given))
        self.memory.settle()
        if self.passes is not None:
            self.passes.places, self.passes.memory = self.places, self.memory

    def tags(self) -> dict[tuple[str, int], Place]:
        """Return the equation numbers of all calls."""
        if self.passes is None:
            return locate(self.module, self.given)
        self.passes.tags = self.passes.tags or locate(self.module, self.given)
        return self.passes.tags

    def try_mistakes(self, *mistakes: tuple[Mistake, int], whole: bool = False) -> Candidate | None:
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

    def forward_misfit(self, mistake: Mistake, site: int) -> Misfit | None:
        """Measure what forward gives with a mistake, once for all its forms; None where it can't be run."""
        key = (str(mistake), site) if mistake.primitive else mistake.plain
        if key not in self.forward:
            plain = dataclasses.replace(mistake, apply=mistake.plain or mistake.apply)
            try:
                with np.errstate(all="ignore"), self.memory.at_work():
                    run_with(self.run_forward, ((plain, site),))(self.module, *self.given)
            except TooFarError as far:
                self.forward[key] = far.misfit
            except UNFIT:
                self.forward[key] = None
        return self.forward[key]

    def candidate(self, mistakes: tuple[tuple[Mistake, int], ...], found: dict[str, np.ndarray]) -> Candidate:
        """Measure results; keep them if they fit."""
        misfit = self.ruler.measure(found)
        if not misfit.fits and self.is_near(misfit):
            misfit = misfit.relative_to(self.growth(mistakes, found))
        if misfit.fits and not self.explains(found):
            misfit = misfit.too_far()
        return Candidate(mistakes, misfit, found if misfit.fits else {})

    def is_near(self, misfit: Misfit) -> bool:
        """Tell whether results are near enough to a mistake's for its own errors to be what is between them."""
        right = max((self.right.distances.get(name, np.inf) for name in misfit.distances), default=np.inf)
        return misfit.worst <= max(1.0, min(FAR, NEAR * right))

    def explains(self, exact: Mapping[str, np.ndarray]) -> bool:
        """Tell whether a mistake leaves but little of what is wrong, however large its own errors may be."""
        left = self.ruler.measure(exact, grown=False).distances
        return all(left[name] <= max(1.0, MOST_LEFT * self.right.distances[name]) for name in self.wrong & left.keys())

    def growth(self, mistakes: tuple[tuple[Mistake, int], ...], exact: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Measure by what factor a mistake makes the errors of results larger: by one pass in float32."""
        if self.passes is not None and mistakes in self.passes.growths:
            return self.passes.growths[mistakes]
        if not self.errors:
            self.errors = self.errors_in_float32((), self.case.expected)
        mistaken = self.errors_in_float32(mistakes, exact)
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
        self, mistakes: tuple[tuple[Mistake, int], ...], exact: Mapping[str, np.ndarray]
    ) -> dict[str, float]:
        """Return the root mean square of the errors of a pass in float32, in units of budget."""
        given = self.given.each(lambda a: a.astype(np.float32))
        run = run_with(self.run, mistakes)
        with np.errstate(all="ignore"):
            results = run(self.module, *given)
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

    def feeds_of_place(self, mistake: Mistake, site: int, fed: Fed) -> set[str] | None:
        """Name the results that are made from what the lines compute that a mistake stands in; None if unknown."""
        numbers = self.places[mistake][:-1] if site == EVERY else [site]
        if not mistake.primitive or any((mistake.primitive, number) not in fed for number in numbers):
            return None
        back = mistake.way == "backward"
        return set().union(*(fed[mistake.primitive, number][back] for number in numbers))

    def in_order(self) -> Iterator[tuple[Mistake, int]]:
        """Yield mistakes with their places, those carried through backward first, and last what is unlikely."""
        late = ("backward",) if self.forward_wrong else ("forward", "both", "carried")
        first = ("carried", "both", "forward", "backward")
        ranked = sorted(self.places, key=lambda one: (one.way in late, first.index(one.way)))
        for mistake in ranked:
            if not (self.forward_wrong and mistake.way == "backward"):
                for site in self.places[mistake]:
                    yield mistake, site

    def in_turn(self, places: Sequence[tuple[Mistake, int]], fed: Fed) -> tuple[list[Any], list[Any]]:
        """Sort mistakes by when they are tried, and part them by whether they may explain all that is wrong.

        A part of every call's in turn, those of calls that little else is made from first: were such a mistake anywhere
        else, more would be wrong.
        """
        calls: dict[Any, dict[str, int]] = {}
        for mistake, site in places:
            names = calls.setdefault(call_of(mistake, site), {})
            names.setdefault(mistake.name, len(names))
        likely: list[Any] = []
        unlikely: list[Any] = []
        for place in places:
            mistake, site = place
            feeds = self.feeds_of_place(mistake, site, fed)
            names = calls[call_of(mistake, site)]
            known = 0 if feeds is None else len(feeds)
            back = mistake.way == "backward" or site >= self.calls.get(mistake.primitive, site + 1)
            late = LATE if back == self.forward_wrong else 0
            key = late + TURNS * names[mistake.name] // len(names), known
            (likely if feeds is None or self.wrong <= feeds else unlikely).append((key, place))
        for group in likely, unlikely:
            group.sort(key=lambda pair: pair[0])
        return [place for _, place in likely], [place for _, place in unlikely]

    def singles(self) -> list[Candidate]:
        """Try mistakes alone, as long as there is time."""
        order = list(self.in_order())
        numbers = {place: number for number, place in enumerate(order)}
        for group in self.in_turn(order, self.fed_from()):
            fitting: list[Candidate] = []
            for place in group:
                if time.perf_counter() > (self.end if fitting else self.deadline):
                    self.complete = False
                    break
                found = self.try_mistakes(place)
                if found is not None:
                    self.tried.append(found)
                    fitting += [found] if found.misfit.fits else []
            if fitting:
                return sorted(fitting, key=lambda one: numbers[one.mistakes[0]])
        return []

    def pairs(self, most: int = 40) -> list[Candidate]:
        """Try pairs of mistakes in different places that together explain all that is wrong."""
        self.finish()
        partial = [one for one in self.tried if self.explained(one) and one.mistakes[0][0].primitive]
        partial.sort(key=lambda one: (-len(one.misfit.within()), one.misfit.worst))
        found: list[Candidate] = []
        for i, one in enumerate(partial[:most]):
            beside = [other for other in partial[:i] if self.explained(one) | self.explained(other) == self.wrong]
            for other in beside + self.behind(one):
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

    def behind(self, one: Candidate) -> list[Candidate]:
        """List mistakes in backward that may stand beside one whose forward is met."""
        if not self.forward_wrong or not self.forward_met(one):
            return []
        late = [mistake for mistake in self.places if mistake.way == "backward" and mistake.primitive]
        return [Candidate(((mistake, site),), one.misfit) for mistake in late for site in self.places[mistake]]

    def forward_met(self, one: Candidate) -> bool:
        """Tell whether all that forward gives is that of a mistake."""
        return all(d <= 1 for name, d in one.misfit.distances.items() if is_forward(name))

    def explained(self, one: Candidate) -> set[str]:
        """Name the wrong results that are those of a mistake."""
        return (self.wrong & one.misfit.within()) if one.whole else set()


def changes_forward(mistake: Mistake) -> bool:
    """Tell whether forward's results are those of `plain`, or of the mistake itself."""
    return mistake.way in ("forward", "both", "carried") and bool(mistake.primitive or mistake.plain)


def call_of(mistake: Mistake, site: int) -> tuple[str, int, bool]:
    """Name the call that a mistake stands in; of whole passes those that are read wrongly are apart."""
    return mistake.primitive, site, not mistake.primitive and mistake.plain is not None


def is_forward(name: str) -> bool:
    """Tell whether a result, or a step, is one of the way forward."""
    return not (is_backward(name) if looks_like_step(name) else name.endswith(".grad"))


def run_with(run: Run, mistakes: tuple[tuple[Mistake, int], ...]) -> Run:
    """Return `run` with mistakes; as it is without."""
    return faulty(run, *mistakes[0]) if len(mistakes) == 1 else planted(run, mistakes)


def with_every(places: Mapping[Mistake, list[int]]) -> dict[Mistake, list[int]]:
    """Let mistakes that can stand in several calls stand in all of them at once too."""
    return {
        one: [*numbers, EVERY] if len(numbers) > 1 and one.primitive not in SUMS else numbers
        for one, numbers in places.items()
    }


def are_apart(one: Candidate, other: Candidate) -> bool:
    """Tell whether two mistakes stand in different calls."""
    (first, site), (second, other_site) = one.mistakes[0], other.mistakes[0]
    return first.primitive != second.primitive or (site != other_site and EVERY not in (site, other_site))


def forward_results(run: Any, upstream: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Name what forward gives, as `named_results` does."""
    outputs = run.output if isinstance(run.output, tuple) else (run.output,)
    return dict(zip(upstream, outputs, strict=True)) | dict(run.buffers) | dict(run.attention)


def ranked(ruler: Ruler, fitting: Sequence[Candidate]) -> list[Candidate]:
    """Sort mistakes whose results fit, the likeliest first; of equals the single ones, and those in one place."""
    best = sorted(fitting, key=lambda one: sum(one.misfit.squares.values()))

    def place(one: Candidate) -> tuple[int, int, bool]:
        likelihood = round(ruler.better(one.misfit, best[0].misfit))
        return -likelihood, len(one.mistakes), not one.mistakes[0][0].primitive

    return sorted(best, key=place)
