"""How a mask may be read otherwise, and what is made of a pass that does so on the way back alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from npattn import ops
from npattn.oracle.mistakes.mistake import Mistake, When, always
from npattn.oracle.mistakes.planting import answering, completed
from npattn.oracle.steps import is_backward, looks_like_step

__all__ = ["SOFTMAX_SAVED", "gradients_of", "is_mask", "key_early", "key_late", "on_the_way_back", "readings_of"]

EXCLUDED = -1e3
"""Number from which one that is added to logits leaves a key out."""
SOFTMAX_SAVED = ", whose softmax is made again by the right logsumexp"
"""How a mistake's name ends that stands in a backward pass which keeps no weights."""

Change = Callable[[np.ndarray], np.ndarray]


def key_early(mask: np.ndarray) -> np.ndarray:
    """Let each row end one place earlier."""
    return np.concatenate([mask[..., 1:], np.zeros_like(mask[..., :1])], axis=-1)


def key_late(mask: np.ndarray) -> np.ndarray:
    """Let each row end one place later."""
    return np.concatenate([mask[..., :1], mask[..., :-1]], axis=-1)


def filled_early(mask: np.ndarray) -> np.ndarray:
    """Let each row end one place earlier, where 1 leaves out."""
    return np.concatenate([mask[..., 1:], np.ones_like(mask[..., :1])], axis=-1)


def moved_late(mask: np.ndarray) -> np.ndarray:
    """Move each row by one place: its first key is left out."""
    return np.concatenate([np.zeros_like(mask[..., :1]), mask[..., :-1]], axis=-1)


def filled_late(mask: np.ndarray) -> np.ndarray:
    """Move each row by one place, where 1 leaves out: its first key is left out."""
    return np.concatenate([np.ones_like(mask[..., :1]), mask[..., :-1]], axis=-1)


def below(mask: np.ndarray) -> np.ndarray:
    """Mark what stands below the diagonal."""
    return np.tri(mask.shape[-2], mask.shape[-1], -1, dtype=bool)


CHANGES: tuple[tuple[str, Change], ...] = (
    ("one place early along its last axis", key_early),
    ("one place early along its last axis", filled_early),
    ("one place late along its last axis", key_late),
    ("one place late along its last axis", moved_late),
    ("one place late along its last axis", filled_late),
    ("left out", np.ones_like),
    ("transposed", lambda mask: mask.swapaxes(-1, -2)),
    ("turned over, 0 for 1", lambda mask: ~mask),
    ("all 1 above its diagonal", lambda mask: mask | below(mask).T),
    ("all 1 below its diagonal", lambda mask: mask | below(mask)),
    ("all 0 above its diagonal", lambda mask: mask & ~below(mask).T),
    ("all 0 below its diagonal", lambda mask: mask & ~below(mask)),
    ("one place wider on both sides", lambda mask: mask | key_late(mask) | key_early(mask)),
    ("all 0", np.zeros_like),
)
"""What is said of a mask of booleans that is read otherwise, and how."""


def is_mask(value: Any) -> bool:
    """Tell whether a value is a mask: two numbers in at least two axes, 0 and 1, or 0 and what leaves keys out.

    Examples
    --------
    >>> is_mask(np.tri(3)), is_mask(np.tri(3) > 0), is_mask(np.where(np.tri(3) > 0, 0, -1e4)), is_mask(np.eye(1))
    (True, True, True, False)
    """
    if not isinstance(value, np.ndarray) or value.ndim < 2 or value.dtype.kind not in "biuf" or value.size < 2:
        return False
    least, most = value.min(), value.max()
    low, high = (0, 1) if most == 1 else (least, 0) if least <= EXCLUDED and most == 0 else (0, 0)
    return bool(low < high and least == low and ((value == low) | (value == high)).all())


def read(change: Change, mask: np.ndarray) -> np.ndarray:
    """Read a mask otherwise, whatever two numbers it has."""
    low, high = mask.min(), mask.max()
    return np.where(change(mask == high), high, low).astype(mask.dtype)


def readings_of(mask: np.ndarray) -> Iterator[tuple[int, str, np.ndarray]]:
    """List what a mask may be taken for: the number of the change, what is said of it, and another mask each time.

    Examples
    --------
    >>> for number, words, other in readings_of(np.tri(2)):
    ...     print(words, other.astype(int).tolist())
    one place early along its last axis [[0, 0], [1, 0]]
    one place early along its last axis [[0, 1], [1, 1]]
    one place late along its last axis [[1, 1], [1, 1]]
    one place late along its last axis [[0, 1], [0, 1]]
    transposed [[1, 1], [0, 1]]
    turned over, 0 for 1 [[0, 1], [0, 0]]
    all 0 below its diagonal [[1, 0], [0, 1]]
    all 0 [[0, 0], [0, 0]]
    """
    seen = [mask]
    for number, (words, change) in enumerate(CHANGES):
        if "diagonal" in words and mask.shape[-1] != mask.shape[-2]:
            continue
        other = read(change, mask)
        if not any(np.array_equal(other, one) for one in seen):
            seen.append(other)
            yield number, words, other


def on_the_way_back(name: str, wrong: Callable[..., Any], when: When = always, *, at: str = "") -> list[Mistake]:
    """Make the two mistakes that a pass is which is wrong on the way back alone: as it is, and by saved logsumexps.

    A backward pass that keeps no weights makes them again, of logits that it reads otherwise and the logsumexp of the
    right ones, and takes the product of output and its gradient for the softmax's sum.

    Parameters
    ----------
    name : str
    wrong : callable
        ``wrong(run, module, params, inputs, upstream)`` returns the results of the pass with the mistake.
    when : callable
    at : str
        What stands before the name: the tag of a line.
    """
    told = f"{at} gradient: {name}".strip()

    def apply(run: Any, *given: Any) -> Any:
        return gradients_of(wrong(run, *given), run(*given))

    def by_sums(run: Any, *given: Any) -> Any:
        logits: list[tuple[np.ndarray, int]] = []

        def remember(primitive: Any, arguments: Any, options: Any) -> Any:
            if primitive is ops.softmax:
                (z, axis), _ = completed(primitive, arguments, options)
                logits.append((z, axis))
            return NotImplemented

        with answering(remember):
            right = run(*given)
        if not logits:
            raise ValueError("there is no softmax")
        saved = iter(logits)

        def again(primitive: Any, arguments: Any, options: Any) -> Any:
            if primitive is not ops.softmax:
                return NotImplemented
            z, axis = next(saved)
            return softmax_again(arguments[0], z, axis)

        with answering(again):
            return gradients_of(wrong(run, *given), right)

    return [
        Mistake("", told, "backward", apply, when),
        Mistake("", f"{told}{SOFTMAX_SAVED}", "backward", by_sums, when),
    ]


def softmax_again(z: np.ndarray, right: np.ndarray, axis: int) -> Any:
    """Return a softmax made by the logsumexp of other logits, and its backward with the sum of theirs."""
    most = right.max(axis=axis, keepdims=True)
    logsumexp = most + np.log(np.exp(right - most).sum(axis=axis, keepdims=True))
    a, saved = np.exp(z - logsumexp), np.exp(right - logsumexp)

    def backward(da: np.ndarray) -> np.ndarray:
        return a * (da - (saved * da).sum(axis=axis, keepdims=True))

    return a, backward


def gradients_of(found: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    """Take what is made on the way back of one pass, and all else of another."""
    back = {
        name: a
        for name, a in found.items()
        if (is_backward(name) if looks_like_step(name) else name.endswith(".grad")) and name in right
    }
    return right | back
