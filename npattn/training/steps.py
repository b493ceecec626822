"""Training: batches, the loss, steps of gradient descent with momentum, and how good the result is."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from npattn import ops
from npattn.checks import require_integers, require_seed
from npattn.data.digits import NUM_CLASSES, DigitMaps, digit_maps
from npattn.training.network import SegmentationNetwork, matched_network
from npattn.typing import Gradients

__all__ = ["Scores", "Training", "descend", "evaluate", "falling_rate", "learn", "train"]

NUM_EPOCHS = 6
"""Unless told otherwise."""
NUM_MAPS = {"train": 600, "test": 200}
BATCH_SIZE = 10
LEARNING_RATE = 0.2
"""Of the first step; it falls to 0 along a cosine."""
MOMENTUM = 0.9


@dataclass(frozen=True)
class Scores:
    """How well pixels are classified.

    Attributes
    ----------
    accuracy : float
        Share of all pixels that are given their class.
    digit_accuracy : float
        The same of the pixels that belong to a digit.
    mean_iou : float
        Mean over the classes of intersection over union: pixels of the class that are given it, over those that are of
        it or are given it.
    """

    accuracy: float
    digit_accuracy: float
    mean_iou: float


@dataclass
class Training:
    """What a run of training has come to.

    Attributes
    ----------
    network : SegmentationNetwork
    params : dict of numpy.ndarray
        Parameters and running statistics, as they are now.
    initial : dict of numpy.ndarray
        As they were at the start.
    losses : list of float
        Of every batch so far.
    total : int
        Steps that there will be.
    scalars : dict of list
        Parameters of one number, such as DANet's γ, after every step.
    """

    network: SegmentationNetwork
    params: dict[str, np.ndarray]
    initial: dict[str, np.ndarray]
    total: int
    losses: list[float] = field(default_factory=list)
    scalars: dict[str, list[float]] = field(default_factory=dict)


def descend(
    params: dict[str, np.ndarray],
    velocity: dict[str, np.ndarray],
    grads: Gradients,
    learning_rate: float,
) -> None:
    """Take one step of gradient descent with momentum: v ← μ v + g, w ← w - η v, new arrays in both dicts.

    Parameters
    ----------
    params, velocity : dict of numpy.ndarray
        `velocity` is empty before the first step.
    grads : dict of array
        A parameter that has none here stays as it is.
    learning_rate : float
        η.

    Examples
    --------
    >>> params, velocity = {"w": np.array([1.0])}, {}
    >>> for _ in range(2):
    ...     descend(params, velocity, {"w": params["w"]}, learning_rate=0.1)
    >>> params["w"]
    array([0.72])
    """
    for name, gradient in grads.items():
        velocity[name] = MOMENTUM * velocity.get(name, 0) + gradient
        params[name] = params[name] - learning_rate * velocity[name]


def learn(
    network: SegmentationNetwork,
    params: dict[str, np.ndarray],
    velocity: dict[str, np.ndarray],
    batch: DigitMaps,
    learning_rate: float,
    *,
    without: tuple[str, ...] = (),
) -> float:
    """Go forward, back, and one step down; the new parameters and running statistics are put into `params`.

    Parameters
    ----------
    network : SegmentationNetwork
    params, velocity : dict of numpy.ndarray
        As of `descend`.
    batch : DigitMaps
    learning_rate : float
    without : tuple of str, optional
        Parameters whose gradient is dropped.

    Returns
    -------
    float
        The loss before the step.
    """
    run = network(params, batch.x)
    loss, back_loss = ops.cross_entropy(run.output, batch.labels)
    dz = back_loss(1.0)
    _, grads = run.backward(dz)
    kept = {name: gradient for name, gradient in grads.items() if name not in without}
    descend(params, velocity, kept, learning_rate)
    params.update(run.buffers)
    return float(loss)


def falling_rate(start: float, step: int, total: int) -> float:
    """Let a learning rate fall to 0 along half a cosine.

    Examples
    --------
    >>> falling_rate(0.2, 0, 100), falling_rate(0.2, 50, 100)
    (0.2, 0.1)
    """
    return start * (1 + math.cos(math.pi * step / total)) / 2


def train(
    key: str,
    epochs: int = NUM_EPOCHS,
    seed: int = 0,
    *,
    change: Callable[[SegmentationNetwork], SegmentationNetwork] | None = None,
    without: tuple[str, ...] = (),
) -> Iterator[Training]:
    """Train the network with one system, and hand out after every step what it has come to.

    Parameters
    ----------
    key : str
        One of `npattn.training.SYSTEMS`.
    epochs : int, default 6
        How often each of the 600 maps is seen.
    seed : int, default 0
        Of parameters, maps and their order.
    change : callable, optional
        Makes another network of the one that is trained: to see what a mistake does.
    without : tuple of str, optional
        Parameters whose gradient is dropped.

    Yields
    ------
    Training
        The same object every time.

    Raises
    ------
    TypeError, ValueError
        If `key` names no system, or a number is no integer that will do.

    Examples
    --------
    >>> run = next(train("eca"))
    >>> len(run.losses), run.total
    (1, 360)
    """
    require_integers("train", epochs=epochs)
    seed = require_seed("train", seed)
    network = matched_network(key, training=True)
    network = change(network) if change else network
    params = network.init(seed, dtype=np.float32)
    maps = digit_maps(NUM_MAPS["train"], seed)
    random = np.random.RandomState([seed, 1])
    run = Training(network, params, dict(params), epochs * (NUM_MAPS["train"] // BATCH_SIZE))
    velocity: dict[str, np.ndarray] = {}
    for _ in range(epochs):
        for drawn in random.permutation(NUM_MAPS["train"]).reshape(-1, BATCH_SIZE):
            batch = DigitMaps(maps.x[drawn].astype(np.float32), maps.labels[drawn])
            rate = falling_rate(LEARNING_RATE, len(run.losses), run.total)
            run.losses.append(learn(network, params, velocity, batch, rate, without=without))
            for name in network.parameters():
                if params[name].size == 1:
                    run.scalars.setdefault(name, []).append(float(params[name][0]))
            yield run


def evaluate(run: Training, maps: DigitMaps | None = None) -> Scores:
    """Classify the pixels of maps that were not trained on.

    Parameters
    ----------
    run : Training
    maps : DigitMaps, optional
        By default 200 of the digits that training leaves out.

    Returns
    -------
    Scores
    """
    maps = digit_maps(NUM_MAPS["test"], split="test") if maps is None else maps
    network = dataclasses.replace(run.network, training=False)
    said = np.concatenate(
        [
            network(run.params, maps.x[i : i + BATCH_SIZE].astype(np.float32)).output.argmax(axis=1)
            for i in range(0, len(maps.x), BATCH_SIZE)
        ]
    )
    return score_pixels(maps.labels, said)


def score_pixels(labels: np.ndarray, said: np.ndarray) -> Scores:
    """Compare the classes of pixels with what is said of them.

    Examples
    --------
    >>> score_pixels(np.array([3, 3, 5, 5]), np.array([3, 5, 5, 5]))
    Scores(accuracy=0.75, digit_accuracy=0.5, mean_iou=0.5833333333333333)
    """
    counts = np.zeros((NUM_CLASSES, NUM_CLASSES))
    np.add.at(counts, (labels.ravel(), said.ravel()), 1)
    right, there = np.diag(counts), counts.sum(axis=1)
    union = there + counts.sum(axis=0) - right
    digits = slice(0, NUM_CLASSES - 1)
    return Scores(
        float(right.sum() / there.sum()),
        float(right[digits].sum() / there[digits].sum()),
        float((right[union > 0] / union[union > 0]).mean()),
    )
