"""Hard attention in training: one position of a map is looked at, and names the digit that is somewhere in it."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from npattn import layers, ops
from npattn.attention import HardAttention
from npattn.checks import require_choice, require_integers, require_seed
from npattn.data.digits import BACKGROUND, NUM_DIGITS, DigitMaps, digit_maps
from npattn.parameters import Parameter, add_prefix, strip_prefix
from npattn.training.network import blocks_to_channels
from npattn.training.steps import BATCH_SIZE, NUM_EPOCHS, NUM_MAPS, descend, falling_rate
from npattn.typing import Array, Gradients, Params

__all__ = ["ESTIMATORS", "Glimpses", "evaluate_glimpses", "glimpse", "train_glimpses"]

ESTIMATORS = "soft", "straight-through", "score function", "score function, baseline"
"""Ways to train what scores the positions; the first averages all positions and needs no estimate."""
CHANNELS = 16
LEARNING_RATE = 0.1
BASELINE_MOMENTUM = 0.9
"""Weight of the past in the mean of rewards that serves as a baseline."""
HARD = HardAttention(CHANNELS)


@dataclass
class Glimpses:
    """What a run of training has come to.

    Attributes
    ----------
    params : dict of numpy.ndarray
    losses : list of float
        Of every batch so far.
    estimator : str
    """

    params: dict[str, np.ndarray]
    estimator: str
    losses: list[float] = field(default_factory=list)


def declare() -> tuple[dict[str, Parameter], dict[str, Parameter]]:
    """Declare the parameters and the running statistics."""
    parameters = {
        **layers.conv_norm_act_parameters("conv1", CHANNELS, 4, kernel_size=3),
        **layers.conv_norm_act_parameters("conv2", CHANNELS, CHANNELS, kernel_size=3),
        **add_prefix("attention.", HARD.parameters()),
        **layers.linear_parameters("classifier", NUM_DIGITS, CHANNELS),
    }
    first, second = (layers.conv_norm_act_buffers(name, CHANNELS) for name in ("conv1", "conv2"))
    return parameters, first | second


def glimpse(
    params: Params,
    x: Array,
    labels: Array,
    noise: Array,
    estimator: str,
    *,
    baseline: float = 0.0,
) -> tuple[Array, Gradients, Params]:
    """Look at one position of each map, name the digit, and estimate the gradient of the expected loss.

    Parameters
    ----------
    params : mapping of str to array
    x : array, (B, 1, 2H, 2W)
    labels : array of integers, (B,)
    noise : array, (B, H W)
        Gumbel's; it draws the positions.
    estimator : str
        One of `ESTIMATORS`.
    baseline : float, default 0
        What is taken off the reward.

    Returns
    -------
    losses : array, (B,)
    grads : dict of array
    running : dict of array
        New running statistics.
    """
    layer = functools.partial(layers.conv_norm_act, params=params, training=True)
    (r, running_1), back_1 = layer(blocks_to_channels(x), name="conv1")
    (f, running_2), back_2 = layer(r, name="conv2")
    own = strip_prefix("attention.", params)
    look = HARD.expected_output(own, f) if estimator == "soft" else HARD(own, f, noise)
    z, back_classifier = layers.linear(look.output, params, "classifier")
    p, _ = ops.softmax(z)
    truth = labels[:, None] == np.arange(NUM_DIGITS)
    losses = -np.log(p[truth])

    batch = len(x)
    dy, grads_classifier = back_classifier((p - truth) / batch)
    if estimator == "soft":
        df, grads_look = look.backward(dy)
    elif estimator == "straight-through":
        (df, _), grads_look = look.backward(dy)
    else:  # the estimate is of the reward's slope, and the loss is minus the reward
        rise, rises = HARD.score_function_grad(own, f, noise, -losses, baseline)
        selected = look.attention["selected"][:, None]
        df = selected * dy[:, :, None, None] - rise / batch
        grads_look = {name: -gradient / batch for name, gradient in rises.items()}
    dr, grads_2 = back_2(df)
    _, grads_1 = back_1(dr)

    grads_attention = add_prefix("attention.", grads_look)
    grads = grads_1 | grads_2 | grads_attention | grads_classifier
    return losses, grads, running_1 | running_2


def train_glimpses(estimator: str, epochs: int = NUM_EPOCHS, seed: int = 0) -> Iterator[Glimpses]:
    """Train on maps that hold one digit among clutter, and hand out after every step what it has come to.

    Parameters
    ----------
    estimator : str
        One of `ESTIMATORS`.
    epochs : int, default 6
    seed : int, default 0

    Yields
    ------
    Glimpses
        The same object every time.

    Raises
    ------
    TypeError, ValueError
        If an argument is none of these.

    Examples
    --------
    >>> next(train_glimpses("straight-through")).estimator
    'straight-through'
    """
    require_choice("train_glimpses", ESTIMATORS, estimator=estimator)
    require_integers("train_glimpses", epochs=epochs)
    seed = require_seed("train_glimpses", seed)
    random = np.random.RandomState([seed, 2])
    declared = {name: one for part in declare() for name, one in part.items()}
    params = {name: one.draw(random).astype(np.float32) for name, one in declared.items()}
    maps = digit_maps(NUM_MAPS["train"], seed, cells=1)
    run, baseline = Glimpses(params, estimator), 0.0
    velocity: dict[str, np.ndarray] = {}
    total = epochs * (NUM_MAPS["train"] // BATCH_SIZE)
    for _ in range(epochs):
        for batch in random.permutation(NUM_MAPS["train"]).reshape(-1, BATCH_SIZE):
            x = maps.x[batch].astype(np.float32)
            noise = random.gumbel(size=(len(x), x[0].size // 4)).astype(np.float32)
            losses, grads, running = glimpse(params, x, classes(maps)[batch], noise, estimator, baseline=baseline)
            descend(params, velocity, grads, falling_rate(LEARNING_RATE, len(run.losses), total))
            params |= running
            run.losses.append(float(losses.mean()))
            if estimator.endswith("baseline"):
                baseline = BASELINE_MOMENTUM * baseline - (1 - BASELINE_MOMENTUM) * run.losses[-1]
            yield run


def classes(maps: DigitMaps) -> np.ndarray:
    """Name the one digit of each map: the least label, since the background's is the largest."""
    return maps.labels.min(axis=(1, 2))


def evaluate_glimpses(run: Glimpses) -> tuple[float, float]:
    """Name the digits of test maps from their most probable position; of soft attention, from the mean.

    Returns
    -------
    right : float
        Share of the maps whose digit is named.
    hit : float
        Share of the maps where the most probable position is on the digit: one of its block's four pixels is.
    """
    maps = digit_maps(NUM_MAPS["test"], split="test", cells=1)
    layer = functools.partial(layers.conv_norm_act, params=run.params, training=False)
    (r, _), _ = layer(blocks_to_channels(maps.x.astype(np.float32)), name="conv1")
    (f, _), _ = layer(r, name="conv2")
    own = strip_prefix("attention.", run.params)
    look = HARD(own, f, np.zeros((len(f), f[0, 0].size), f.dtype))
    y = HARD.expected_output(own, f).output if run.estimator == "soft" else look.output
    z, _ = layers.linear(y, run.params, "classifier")
    on_digit = blocks_to_channels(maps.labels[:, None] != BACKGROUND).any(axis=1)
    chosen = look.attention["selected"] > 0
    return float((z.argmax(axis=1) == classes(maps)).mean()), float(on_digit[chosen].mean())
