"""Small networks of the project's own primitives, trained on handwritten digits."""

from npattn.training.glimpses import ESTIMATORS, Glimpses, evaluate_glimpses, glimpse, train_glimpses
from npattn.training.network import PARAMETER_BUDGET, SegmentationNetwork, count_parameters, matched_network
from npattn.training.steps import Scores, Training, descend, evaluate, train
from npattn.training.systems import SYSTEMS, Identity, PositionAndChannelAttention, SelfAttention, make_system

__all__ = [
    "ESTIMATORS",
    "PARAMETER_BUDGET",
    "SYSTEMS",
    "Glimpses",
    "Identity",
    "PositionAndChannelAttention",
    "Scores",
    "SegmentationNetwork",
    "SelfAttention",
    "Training",
    "count_parameters",
    "descend",
    "evaluate",
    "evaluate_glimpses",
    "glimpse",
    "make_system",
    "matched_network",
    "train",
    "train_glimpses",
]
