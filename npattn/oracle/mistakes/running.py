"""Passes with mistakes, run exactly, and no further than to the first result that is too far off."""

from __future__ import annotations

import collections
import dataclasses
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from npattn.oracle.budgets import Given, named_results
from npattn.oracle.mistakes.candidates import Candidate
from npattn.oracle.mistakes.distances import Misfit, Ruler
from npattn.oracle.mistakes.forwarding import Instead
from npattn.oracle.mistakes.going_back import GoingBack, can_go_back, no_look
from npattn.oracle.mistakes.mistake import Mistake
from npattn.oracle.mistakes.ordering import FORWARD, calls_in
from npattn.oracle.mistakes.planting import Run, Site, answering, faulty, planted
from npattn.oracle.mistakes.replaying import Memory
from npattn.oracle.mistakes.returning import Returned, results_among, watching
from npattn.oracle.steps import Recorded, is_backward, looks_like_step, reader_of
from npattn.wording import describe_type

if TYPE_CHECKING:
    from npattn.oracle.case import Case

__all__ = ["UNFIT", "Runner", "TooFarError", "forward_results", "run_with"]

FAR_DISTANCE = 30.0
"""Distance from which a mistake is not looked at any more; backward is not run where forward gives that already."""
NEAR_RATIO = 0.1
"""How far off a mistake may be that is looked at closely, in proportion to how far off the right pass is."""
NEARER_RATIO = 0.5
"""How far off the nearest mistake may be to be told of, in proportion to how far off the right pass is."""
MAX_LEFT_RATIO = 0.25
"""How far off a result may be from a mistake that explains it, in proportion to how far off the right pass is."""
MOST_GROWTH = 100.0
"""Factor by which a mistake makes errors larger at most."""
UNFIT = ValueError, TypeError, LookupError, AttributeError, ArithmeticError, NameError
"""What a pass raises whose mistake does not fit a system's shapes."""


class TooFarError(Exception):
    """What is known already is too far off, or all that is to be known: the pass need not go on."""

    def __init__(self, misfit: Misfit, *, going_back: bool = False) -> None:
        super().__init__()
        self.misfit, self.going_back = misfit, going_back


class Runner:
    """Runs passes with mistakes, to be measured against a kernel's results.

    Parameters
    ----------
    case : Case
    results : mapping of numpy.ndarray
        By name, as the case expects them; of steps that it has among its results too.
    dtype : dtype, default float64
        What passes are computed in.
    """

    def __init__(self, case: Case, results: Mapping[str, np.ndarray], dtype: Any = np.float64) -> None:
        self.case, self.module = case, case.module
        steps = {name: a.shape for name, a in results.items() if looks_like_step(name)}
        self.read = reader_of(steps) if steps else None
        self.ruler = Ruler(case, results)
        self.given = Given(case.params, case.inputs, case.upstream).each(lambda a: for_reading(np.array(a, dtype)))
        self.right = self.ruler.measure(case.expected)
        self.memory = Memory()
        self.places: dict[Mistake, list[Site]] = {}
        self.forward: dict[Any, Misfit | None] = {}
        self.returned: Returned = {}
        self.calls: dict[str, int] = {}
        self.kinds: dict[tuple[str, int], Any] = {}
        self.ways_back: list[GoingBack] = []
        self.making = threading.Lock()

    @property
    def wrong(self) -> set[str]:
        """Names of the results that are not as they should be."""
        return set(self.right.distances) - self.right.within()

    def is_near(self, misfit: Misfit) -> bool:
        """Tell whether results are near enough to a mistake's for its own errors to be what is between them."""
        right = max((self.right.distances.get(name, np.inf) for name in misfit.distances), default=np.inf)
        return misfit.worst <= self.nearness(right)

    def nearness(self, right: float) -> float:
        """Return how far off a mistake may be that is looked at closely, where the right pass is so far off."""
        return max(1.0, min(FAR_DISTANCE, NEAR_RATIO * right))

    def explains(self, exact: Mapping[str, np.ndarray], most: float = MAX_LEFT_RATIO) -> bool:
        """Tell whether a mistake leaves but a share of what is wrong, however large its own errors may be."""
        return not self.left_by(exact, most)

    def left_by(self, exact: Mapping[str, np.ndarray], most: float = MAX_LEFT_RATIO) -> set[str]:
        """Name the wrong results of which a mistake leaves more than that share."""
        left = self.ruler.measure(exact, grown=False).distances
        return {name for name in self.wrong & left.keys() if left[name] > max(1.0, most * self.right.distances[name])}

    def recorded(self, module: Any) -> Any:
        """Return a module whose pass has the steps that are given among its results."""
        if self.read is None:
            return module
        made = module.as_module() if isinstance(module, Instead) and module.as_module is not None else module
        return Recorded(made, self.read)

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

        def count(primitive: Any, arguments: Any, options: Any) -> Any:
            name = primitive.__name__
            self.kinds[name, calls[name]] = [np.shape(a) for a in arguments if hasattr(a, "shape")], len(arguments)
            calls[name] += 1
            return NotImplemented

        def run_counted(params: Any, *inputs: Any) -> Any:
            found = module(params, *inputs)
            self.calls = dict(calls)
            return found

        counted: Any = Instead(module, run_counted) if self.read is None else module
        with answering(count), watching(lambda *pair: returned.append(pair)):
            results = self.run(counted, *given)
        self.ruler.remember(results)
        self.returned = results_among(returned, results, [f"{name}.grad" for name in self.case.params])
        return results

    def run_checked(self, module: Any, *given: Any) -> dict[str, np.ndarray]:
        """Run a pass no further than to the first result that is too far off."""
        with watching(self.check):
            return self.run(module, *given, stop=True)

    def check(self, number: int, gradients: tuple[Any, ...]) -> None:
        """Stop a pass where a result that has come back is too far off."""
        for i, name in self.returned.get(number, ()):
            if name in self.ruler.results:
                misfit = self.ruler.measure({name: gradients[i].reshape(self.case.expected[name].shape)})
                if misfit.worst > self.nearness(self.right.worst):
                    raise TooFarError(misfit, going_back=True)

    def forward_misfit(self, mistake: Mistake, site: Site) -> Misfit | None:
        """Measure what forward gives with a mistake, once for all its forms; None where it can't be run."""
        if mistake.primitive and self.is_behind_forward(mistake, site):
            distances, squares = self.right.distances, self.right.squares
            return Misfit(*({name: a for name, a in one.items() if is_forward(name)} for one in (distances, squares)))
        key = forward_key(mistake, site)
        if key not in self.forward:
            self.forward[key] = self.measured_forward(((in_forward(mistake), site),))
        return self.forward[key]

    def is_behind_forward(self, mistake: Mistake, site: Site) -> bool:
        """Tell whether the calls that a mistake stands in are made on the way back alone."""
        made = self.calls.get(mistake.primitive, 0 if self.calls else np.inf)
        return min(calls_in(site, self.places.get(mistake, [])), default=0) >= made

    def run_until_far(
        self, mistakes: tuple[tuple[Mistake, Site], ...], *, whole: bool
    ) -> dict[str, np.ndarray] | Candidate | None:
        """Run a pass with mistakes, the whole of it or until it is too far off, which is measured; None if it can't."""
        stop = all(one.primitive or one.way == "both" for one, _ in mistakes)
        checked = stop and not whole and all(one.primitive for one, _ in mistakes)
        going_back = self.going_back(mistakes)

        def run(module: Any, *given: Any) -> dict[str, np.ndarray]:
            return self.run_checked(module, *given) if checked else self.run(module, *given, stop=stop)

        try:
            if going_back is not None:
                return going_back.results(mistakes[0], no_look if whole else self.check)
            return self.forward_of(mistakes, run)
        except UNFIT:
            return None
        except TooFarError as far:
            return Candidate(mistakes, far.misfit, whole=False, cut=far.going_back)

    def going_back(self, mistakes: tuple[tuple[Mistake, Site], ...]) -> GoingBack | None:
        """Return passes to go back through with a mistake that leaves forward as it is; None where it may not."""
        (mistake, site), *others = mistakes
        behind = bool(mistake.primitive) and self.is_behind_forward(mistake, site)
        if others or self.read is not None or self.memory.keeping or not can_go_back(mistake, behind=behind):
            return None
        with self.making:
            if not self.ways_back:
                self.ways_back.append(GoingBack(self.module, self.given, self.memory))
        return self.ways_back[0] if self.ways_back[0].works else None

    def measured_forward(self, mistakes: tuple[tuple[Mistake, Site], ...]) -> Misfit | None:
        """Run forward with mistakes and measure it; None where it can't be run."""
        found = self.forward_of(mistakes)
        return None if found is None else self.ruler.measure(found, farthest=self.farthest(found))

    def forward_of(
        self, mistakes: tuple[tuple[Mistake, Site], ...], run: Run | None = None
    ) -> dict[str, np.ndarray] | None:
        """Run forward, or all that `run` does, with mistakes; None where it can't be run."""
        try:
            with np.errstate(all="ignore"), self.memory.at_work():
                return dict(run_with(run or self.forward_alone, mistakes)(self.module, *self.given))
        except UNFIT:
            return None

    def farthest(self, found: Mapping[str, np.ndarray]) -> float:
        """Return how far off a mistake with such results may be, to be looked at closely."""
        right = (self.right.distances[name] for name in found if name in self.right.distances)
        return self.nearness(max(right, default=np.inf))

    def forward_alone(self, module: Any, params: Any, inputs: Any, upstream: Any) -> dict[str, np.ndarray]:
        """Run forward, and name what it gives."""
        return forward_results(self.recorded(module)(params, *inputs.values()), upstream)


def for_reading(a: np.ndarray) -> np.ndarray:
    """Let nothing be written to an array: mistakes that do so would spoil the passes that come after."""
    a.flags.writeable = False
    return a


def run_with(run: Run, mistakes: tuple[tuple[Mistake, Site], ...]) -> Run:
    """Return `run` with mistakes; as it is without."""
    return faulty(run, *mistakes[0]) if len(mistakes) == 1 else planted(run, mistakes)


def forward_results(run: Any, upstream: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Name what forward gives, as `named_results` does; a TypeError where it is no number, as ``Pass(backward, y)``."""
    outputs = run.output if isinstance(run.output, tuple) else (run.output,)
    found = dict(zip(upstream, outputs, strict=True)) | dict(run.buffers) | dict(run.attention)
    for name, a in found.items():
        if np.asarray(a).dtype.kind not in "fiub":
            raise TypeError(f"{name} is {describe_type(a)}; expected numbers")
    return found


def changes_forward(mistake: Mistake) -> bool:
    """Tell whether forward's results are those of `plain`, or of the mistake itself."""
    return mistake.way in FORWARD and bool(mistake.primitive or mistake.plain)


def in_forward(mistake: Mistake) -> Mistake:
    """Make the mistake at the least cost that gives the same forward."""
    return dataclasses.replace(mistake, apply=mistake.plain or mistake.apply)


def is_forward(name: str) -> bool:
    """Tell whether a result, or a step, is one of the way forward."""
    return not (is_backward(name) if looks_like_step(name) else name.endswith(".grad"))


def forward_key(mistake: Mistake, site: Site) -> Any:
    """Name what mistakes have in common that give the same forward."""
    return (str(mistake), site) if mistake.primitive else mistake.plain
