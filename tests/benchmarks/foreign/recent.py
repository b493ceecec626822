"""A third set, of the systems that came last, whose author has not read the catalogue of mistakes either.

They can be measured by themselves:

    python tests/benchmarks/diagnosis.py --foreign tests/benchmarks/foreign/recent.py
"""

from tests.benchmarks.foreign import pieces, recent_channel, recent_self_attention, recent_spatial

PARTS = recent_channel, recent_spatial, recent_self_attention

FORMS = {
    "sk": recent_channel.sk,
    "split": recent_channel.split,
    "triplet": recent_spatial.triplet,
    "shuffle": recent_spatial.shuffle,
    "non-local": recent_self_attention.non_local,
    "double": recent_self_attention.double,
    "linear": recent_self_attention.linear,
    "external": recent_self_attention.external,
}
"""The systems without a mistake, as in the package's own list."""

MISTAKES = [one for one in pieces.MISTAKES if one[2].__module__ in {part.__name__ for part in PARTS}]
"""This set alone."""
