"""Mistakes in cross-entropy: labels, which are to be ignored, and what the sum is divided by."""

import numpy as np

from npattn.oracle.mistakes.mistake import argument, gradient, value
from npattn.typing import Array

__all__ = ["ADDED"]

NAME = "cross_entropy"


def number(labels: Array, ignore_index: int) -> int:
    """Count the labels that count."""
    return max(int((labels != ignore_index).sum()), 1)


def several(logits: Array, labels: Array, ignore_index: int) -> bool:
    return number(labels, ignore_index) > 1


def some_ignored(logits: Array, labels: Array, ignore_index: int) -> bool:
    return 0 < (labels == ignore_index).sum() < labels.size


def next_label(logits: Array, labels: Array, ignore_index: int) -> Array:
    following = np.where(labels + 1 < logits.shape[1], labels + 1, 0)
    return np.where(labels == ignore_index, labels, following)


def not_less_1(g: Array, dy: Array, logits: Array, labels: Array, ignore_index: int) -> Array:
    own = labels[:, None] == np.arange(logits.shape[1]).reshape(-1, 1, 1)
    return g + np.where(own, dy / number(labels, ignore_index), 0)


def of_ignored_too(g: Array, dy: Array, logits: Array, labels: Array, ignore_index: int) -> Array:
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    y = e / e.sum(axis=1, keepdims=True)
    return np.where((labels == ignore_index)[:, None], y * (dy / number(labels, ignore_index)), g)


def summed(a: Array, logits: Array, labels: Array, ignore_index: int) -> Array:
    return a * number(labels, ignore_index)


def by_all(a: Array, logits: Array, labels: Array, ignore_index: int) -> Array:
    return summed(a, logits, labels, ignore_index) / labels.size


def by_images(a: Array, logits: Array, labels: Array, ignore_index: int) -> Array:
    return summed(a, logits, labels, ignore_index) / len(labels)


ADDED = [
    value(NAME, "divided by all labels, ignored ones too", by_all, some_ignored),
    value(NAME, "sum, not mean", summed, several),
    value(NAME, "mean of the images' sums", by_images, several),
    argument(NAME, 1, "labels off by one", next_label),
    gradient(
        NAME, 0, "divided by all labels, ignored ones too", lambda g, dy, *a, **o: by_all(g, *a, **o), some_ignored
    ),
    gradient(NAME, 0, "not divided by the number of labels", lambda g, dy, *a, **o: summed(g, *a, **o), several),
    gradient(NAME, 0, "not less 1 for the label", not_less_1),
    gradient(NAME, 0, "of ignored labels too", of_ignored_too, some_ignored),
]
