"""Mistakes in dropout."""

from npattn.oracle.mistakes.families import IMAGE_0_FOR_ALL
from npattn.oracle.mistakes.mistake import argument, gradient, value

__all__ = ["HELD_OUT", "TUNED_ON"]

TUNED_ON = [
    value("dropout", "not scaled up", lambda y, x, mask, rate: y * (1 - rate)),
    argument("dropout", 1, "mask inverted", lambda x, mask, rate: 1 - mask),
    gradient("dropout", 0, "not scaled up", lambda g, dy, x, mask, rate: g * (1 - rate)),
    gradient("dropout", 0, "mask left out", lambda g, dy, x, mask, rate: dy / (1 - rate)),
]
HELD_OUT = [IMAGE_0_FOR_ALL.in_argument("dropout", 1, "mask of image 0 for all")]
