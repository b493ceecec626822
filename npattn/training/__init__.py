"""A small network of the project's own primitives, trained on handwritten digits: does attention learn, and does it help?"""

from npattn.training.network import PARAMETER_BUDGET, SegmentationNetwork, count_parameters, matched_network
from npattn.training.steps import Scores, Training, descend, evaluate, train
from npattn.training.systems import SYSTEMS, Identity, PositionAndChannelAttention, SelfAttention, make_system

__all__ = [
    "PARAMETER_BUDGET",
    "SYSTEMS",
    "Identity",
    "PositionAndChannelAttention",
    "Scores",
    "SegmentationNetwork",
    "SelfAttention",
    "Training",
    "count_parameters",
    "descend",
    "evaluate",
    "make_system",
    "matched_network",
    "train",
]
