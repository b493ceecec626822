"""What a wrong result looks like: suspects, best first, and how to say it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from npattn.oracle.mistakes.mistake import Mistake

__all__ = ["Diagnosis", "Suspect", "enumerate_names"]

MOST_SHOWN = 5
"""Suspects that a report lists."""
MAX_JUST_DISTANCE = 1.05
"""Distance up to which a mistake is told to be just too far off."""
MOST_TWINS = 2
"""Others with the same results that are told."""
PRECISION = "it may be a lack of precision, and no mistake of mathematics: errors have the size of what follows"
"""What is said where errors have a size that some arithmetic has, of which the size alone is known."""
PRECISION_OF_FEW = (
    "it may be a lack of precision, though so few numbers tell little: errors have the size of what follows"
)
"""What is said where a number or two are wrong, of which any size may be chance."""
IN_PYTHON = "case.diagnose(results, seconds={})"
"""How a search for mistakes is given more time."""
MOST_NAMED = 3
"""Wrong results that are named where they are all that are wrong."""


@dataclass(frozen=True)
class Suspect:
    """A mistake whose results a kernel's are, or two.

    Attributes
    ----------
    mistakes : tuple of Mistake
    steps : tuple of str
        Where each stands, by the equation numbers of the system's code: ``"(2)"``, ``"sa / (4')"``; empty for a whole
        pass.
    results : tuple of str
        The wrong results that it explains.
    distance : float
        How far the results are from those of a pass with it, in units of their limits: up to 1 they are the same.
    all : bool
        Whether these are all that are wrong.
    twins : tuple of Mistake
        Others that have the same results here: where a number is the same by these hyperparameters, or in other words.
    """

    mistakes: tuple[Mistake, ...]
    steps: tuple[str, ...]
    results: tuple[str, ...]
    distance: float
    all: bool = False
    twins: tuple[Mistake, ...] = ()

    @property
    def name(self) -> str:
        """What is wrong, and where."""
        return " and ".join(map(describe, self.mistakes, self.steps))

    def __str__(self) -> str:
        count = len(self.results)
        results = f"all {count} wrong results" if self.all and count > MOST_NAMED else enumerate_names(self.results)
        names = dict.fromkeys(twin.name for twin in self.twins if twin.name != self.mistakes[0].name)
        same = f"; here the same: {', '.join([*names][:MOST_TWINS])}" if names else ""
        return f"{results} {'is that of' if count == 1 else 'are those of'} {self.name}{same}"


@dataclass(frozen=True)
class Diagnosis(Sequence[Suspect]):
    """Suspects, best first; as text, one a line.

    Attributes
    ----------
    suspects : tuple of Suspect
        Those whose results the kernel's are.
    alike : int
        How many of the first can't be told apart by the results given.
    sure : bool
        Whether the results say enough to name the first, or the first that are alike.
    nearest : Suspect, optional
        Where none fits, and no wrong result reads exactly as another: the one that comes nearest.
    hints : tuple of str
        What would tell those apart that are alike.
    right : bool
        Whether nothing is wrong.
    complete : bool
        Whether there was time to try all.
    untried : str
        Why no mistake was tried; else empty.
    few : bool
        Whether so few numbers are wrong that the size of their errors says little.
    blurred : tuple of str
        Wrong results that say nothing of the first suspect: rounding errs by more there than is wrong.
    unfinished : str
        How far the search came where there was no time to try all; else empty.
    needed : int
        In how many seconds more would be tried there.
    """

    suspects: tuple[Suspect, ...] = ()
    alike: int = 0
    sure: bool = False
    nearest: Suspect | None = None
    hints: tuple[str, ...] = ()
    right: bool = False
    complete: bool = True
    untried: str = ""
    few: bool = False
    blurred: tuple[str, ...] = ()
    unfinished: str = ""
    needed: int = 0

    def __len__(self) -> int:
        return len(self.suspects)

    def __iter__(self) -> Iterator[Suspect]:
        return iter(self.suspects)

    def __getitem__(self, i: Any) -> Any:
        return self.suspects[i]

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def what_is_left(self, more: str = IN_PYTHON) -> str:
        """Say how far a search came that had not time enough, and how more is tried: `more` with the seconds in it."""
        return self.unfinished and f"{self.unfinished}: {more.format(self.needed)} tries more"

    def lines(self, more: str = IN_PYTHON) -> list[str]:
        """Write one suspect a line, and what is left."""
        if self.right:
            return ["nothing is wrong with these results"]
        if self.untried:
            return [*fold(self.untried), *(folded for hint in self.hints for folded in fold(hint, "  "))]
        left = fold(self.what_is_left(more))
        if not self.suspects:
            near = self.nearest
            lines = ["no known mistake gives these results"]
            if near is not None and np.isfinite(near.distance):
                far = f"{near.distance:.2g} times" if near.distance >= MAX_JUST_DISTANCE else "just beyond"
                lines.append(f"the nearest is {near.name}: its results are {far} what errors of rounding explain")
            return [*(folded for line in lines for folded in fold(line)), *left]
        first = self.suspects[: self.alike]
        by_size = all(mistake.way == "precision" for one in first for mistake in one.mistakes)
        by_size_alone = PRECISION_OF_FEW if self.few else PRECISION
        unsure = by_size_alone if by_size else "it may be, though these results say too little to be sure:"
        lines = fold("it looks like:" if self.sure else unsure)
        lines += [folded for one in first[:MOST_SHOWN] for folded in fold(str(one), "  ")]
        lines += [f"  and {len(first) - MOST_SHOWN} more"] if len(first) > MOST_SHOWN else []
        if len(first) > 1 and (self.hints or self.sure):
            lines.append(f"these {len(first)} can't be told apart by the results given")
            lines += [folded for hint in self.hints for folded in fold(hint, "  ")]
        if self.blurred:
            says = "says" if len(self.blurred) == 1 else "say"
            blurred = f"{enumerate_names(self.blurred)} {says} nothing of it: rounding errs by more there than is wrong"
            lines += fold(blurred)
        return lines + left


def fold(text: str, indent: str = "") -> list[str]:
    """Fold a line of text."""
    return textwrap.wrap(text, 80, initial_indent=indent, subsequent_indent=f"{indent}  ")


def describe(mistake: Mistake, step: str) -> str:
    """Name a mistake, and where it stands."""
    if not mistake.primitive:
        return f"{mistake.name}, in the output alone" if mistake.way == "output" else mistake.name
    saved = "statistics" if mistake.primitive.endswith("_norm") else "weights"
    forms = {
        "forward": ", in forward alone",
        "carried": ", carried through backward",
        "output": ", in the output alone",
        "weights": f", in forward and the {saved} that backward reads of it",
        "logsumexp": ", in forward alone, whose logsumexp and output backward reads",
    }
    return f"{step} {mistake.primitive}: {mistake.name}{forms.get(mistake.way, '')}".strip()


def enumerate_names(names: Sequence[str]) -> str:
    """List names, as in a sentence; many of them in part."""
    shown = [*names[:4], f"{len(names) - 4} other results"] if len(names) > 5 else list(names)
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
