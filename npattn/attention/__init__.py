"""The attention systems, one file per paper, and the catalogue of them in reading order."""

from npattn.attention.efficient_channel import EfficientChannelAttention
from npattn.attention.squeeze_excitation import SqueezeExcitation
from npattn.module import Module

CATALOGUE: dict[str, type[Module]] = {system.key: system for system in (SqueezeExcitation, EfficientChannelAttention)}

__all__ = ["CATALOGUE", "EfficientChannelAttention", "SqueezeExcitation"]
