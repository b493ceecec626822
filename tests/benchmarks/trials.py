"""What was said of planted mistakes: trials, and how often the right name was first."""

import collections
import dataclasses
import sys
import time

from tests.benchmarks.judge import FORMATS

__all__ = ["Trial", "kinds_in", "named", "report", "share", "surely_wrong", "tell"]


@dataclasses.dataclass(frozen=True)
class Trial:
    """One planted mistake, and what was said of it.

    Attributes
    ----------
    key, case, format, name : str
    rank : int
        Place of the right name among the suspects, from 1 on; 0 where it is none of them.
    sure : bool
        Whether the first was named surely.
    alike : int
        How many could not be told apart.
    said : str
        The first suspect.
    kind : str or tuple of str, optional
        Of a foreign mistake the catalogue's names; None where it has none, or nothing is known of it.
    seconds : float
        How long the search took, where that is measured.
    complete : bool
        Whether there was time to try all.
    """

    key: str
    case: str
    format: str
    name: str
    rank: int
    sure: bool
    alike: int
    said: str
    kind: str | tuple[str, ...] | None = None
    seconds: float = 0.0
    complete: bool = True


def kinds_in(kind):
    """List the catalogue's names of a foreign mistake."""
    return kind if isinstance(kind, tuple) else (kind,) if kind else ()


def share(count, total):
    return f"{100 * count / total:.1f} %" if total else "-"


def report(trials, most):
    """Write how often the right name was first, among three, and a wrong one sure."""
    lines = [f"{'':<24}{'planted':>9}{'first':>9}{'of 3':>9}{'alike':>9}{'none':>9}{'wrong':>9}"]
    groups = {format: [t for t in trials if t.format == format] for format in FORMATS}
    groups |= {key: [t for t in trials if t.key == key] for key in dict.fromkeys(t.key for t in trials)}
    for name, some in (groups | {"all": trials}).items():
        first = sum(map(named, some))
        three = sum(0 < t.rank <= max(3, t.alike) for t in some)
        alike = sum(t.alike > 1 for t in some)
        none = sum(not t.said for t in some)
        wrong = sum(surely_wrong(t) for t in some)
        cells = [share(n, len(some)) for n in (first, three, alike, none, wrong)]
        lines.append(f"{name:<24}{len(some):>9}" + "".join(f"{cell:>9}" for cell in cells))
    known = [t for t in trials if t.kind]
    if known:
        first = share(sum(map(named, known)), len(known))
        sure = share(sum(map(surely_wrong, trials)), len(trials))
        lines.append(f"kind in the catalogue: {len(known)}, first {first}; wrong with confidence: {sure} of all")
    missed = [t for t in trials if not named(t)]
    lines.append(f"not first: {len(missed)}")
    for t in missed[:most]:
        lines.append(f"  {t.case}\n    {t.name}: rank {t.rank}, {'sure' if t.sure else 'not sure'}: {t.said}")
        lines += [f"    in the catalogue: {', '.join(kinds_in(t.kind))}"] if t.kind else []
    counts = collections.Counter(t.name.rpartition(", ")[0] for t in missed)
    lines += [f"  {count} times {name}" for name, count in counts.most_common(most)]
    return lines


def tell(trials, began):
    """Say how it goes."""
    right = sum(named(trial) for trial in trials)
    text = f"{len(trials)} planted, {right} named first, {time.perf_counter() - began:.0f} s"
    print(text, file=sys.stderr, flush=True)


def named(trial):
    """Tell whether the right name is first, or among those that can't be told apart from it."""
    return 0 < trial.rank <= max(1, trial.alike)


def surely_wrong(trial):
    """Tell whether a wrong name was given with confidence."""
    return trial.sure and not named(trial)
