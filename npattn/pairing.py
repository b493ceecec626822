"""Which declared name another one stands for: a published one, or an unknown one by shape, ending, spelling, order."""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from npattn.candidates import Shape
from npattn.synonyms import Naming, solid
from npattn.variations import declared

if TYPE_CHECKING:
    from npattn.module import Module

__all__ = ["OURS", "ending", "find_naming", "is_unused", "pair_all", "pair_names", "stem"]

ENDINGS = {"kernel": "weight", "w": "weight", "gamma": "weight", "b": "bias", "beta": "bias", "variance": "var"}
"""What other libraries call a layer's arrays."""
UNUSED = "num_batches_tracked", "relative_position_index", "rel_pos_indices"
"""What PyTorch's batch norm calls its count, and timm its indices into tables of relative positions: those of windows,
those of lambda layers."""
OURS = Naming()
"""The names that stand here."""


def is_unused(name: str) -> bool:
    """Tell whether no computation uses an array: a count of batches, or indices that the hyperparameters tell."""
    return name.rpartition(".")[2] in UNUSED


def find_naming(module: Module, names: Collection[str]) -> Naming:
    """Return the published naming that knows all of some names, if they are not those that stand here."""
    expected = declared(module)
    known = (naming for naming in module.published if all(map(naming.knows, names)))
    return OURS if all(name in expected for name in names) else next(known, OURS)


def ending(name: str) -> str:
    """Return what kind of array a name ends in: weight, bias, mean, var."""
    last = re.split(r"[._/]", name.lower())[-1]
    return ENDINGS.get(last, last)


def stem(name: str) -> str:
    """Return a name without its ending."""
    return re.sub(r"[._/]?[^._/]*$", "", name)


def pair_names(unknown: Mapping[str, Shape | None], missing: Mapping[str, Shape]) -> dict[str, str]:
    """Say which missing name each unknown one stands for, as far as shapes, endings, spelling and order tell.

    Examples
    --------
    >>> pair_names({"reduce.weight": (4, 64), "expand.weight": (64, 4)}, {"fc1.weight": (4, 64), "fc2.weight": (64, 4)})
    {'reduce.weight': 'fc1.weight', 'expand.weight': 'fc2.weight'}
    """
    pairs: dict[str, str] = {}
    for key in (
        lambda name, shape: (shape, ending(name)),
        lambda name, shape: (solid(shape), ending(name)),
        lambda _, shape: shape,
        lambda _, shape: solid(shape),
    ):
        groups: dict[Any, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
        for name, shape in unknown.items():
            if shape is not None and name not in pairs:
                groups[key(name, shape)][0].append(name)
        taken = set(pairs.values())
        for name, shape in missing.items():
            if name not in taken:
                groups[key(name, shape)][1].append(name)
        for names, targets in groups.values():
            pairs |= match(names, targets)
    return {name: pairs[name] for name in unknown if name in pairs}


def match(names: list[str], targets: list[str]) -> dict[str, str]:
    """Pair names of arrays of one kind: by spelling where it decides, else in order, if there are as many of both.

    An order that parts a name from the target that begins as it does is none to go by.
    """
    if not names or not targets:
        return {}
    if len(names) > len(targets):
        return {name: target for target, name in match(targets, names).items()}
    if len(targets) > 1:
        spelt = {name: target for name in names if (target := nearest_by_far(name, targets))}
        if len(spelt) == len(set(spelt.values())) == len(names):
            return spelt
    pairs = dict(zip(names, targets, strict=True)) if len(names) == len(targets) else {}
    return {} if any(parts_namesakes(*pair, targets) for pair in pairs.items()) else pairs


def parts_namesakes(name: str, chosen: str, targets: list[str]) -> bool:
    """Tell whether another target than the chosen one is the only one to begin as a name does: "g.conv", and "g"."""
    first = name.partition(".")[0]
    namesakes = [target for target in targets if target.partition(".")[0] == first]
    return len(namesakes) == 1 and namesakes[0] != chosen


def nearest_by_far(name: str, targets: list[str]) -> str | None:
    """Return the target whose spelling is nearest, if no other is almost as near."""
    scores = {t: difflib.SequenceMatcher(None, name.lower(), t.lower()).ratio() for t in targets}
    first, second, *_ = sorted(targets, key=scores.__getitem__, reverse=True)
    return first if scores[first] >= scores[second] + 0.1 else None


def pair_all(given: Mapping[str, Shape | None], expected: Mapping[str, Shape]) -> dict[str, str]:
    """Pair all unknown names with missing ones; nothing where one remains, or there are a whole model's."""
    unknown = {name: shape for name, shape in given.items() if name not in expected}
    missing = {name: shape for name, shape in expected.items() if name not in given}
    pairs = pair_names(unknown, missing) if len(unknown) <= len(missing) else {}
    return pairs if len(pairs) == len(unknown) else {}
