"""A fourth set, whose author has not read the catalogue of mistakes either.

It can be measured by itself:

    python tests/benchmarks/diagnosis.py --foreign tests/benchmarks/foreign/latest.py
"""

from tests.benchmarks.foreign import (
    latest_branches,
    latest_cbam,
    latest_channel,
    latest_coordinate,
    latest_gathering,
    latest_heads,
    latest_positions,
    latest_products,
    latest_relative,
    latest_residual,
    latest_windows,
    pieces,
)
from tests.benchmarks.foreign.latest_kinds import KINDS

PARTS = (
    *(latest_channel, latest_cbam, latest_coordinate, latest_gathering),
    *(latest_positions, latest_heads, latest_products, latest_windows, latest_relative),
    *(latest_branches, latest_residual),
)

FORMS = {
    "se": latest_channel.se,
    "eca": latest_channel.eca,
    "ge": latest_gathering.ge,
    "cbam": latest_cbam.cbam,
    "coordinate": latest_coordinate.coordinate,
    "pam": latest_positions.pam,
    "mhsa": latest_heads.mhsa,
    "sdpa": latest_products.sdpa,
    "window": latest_windows.windowed,
    "bottleneck": latest_relative.bottleneck,
    "multi-scale": latest_branches.multi_scale,
    "residual": latest_residual.residual,
}
"""The systems without a mistake, as in the package's own list."""

MISTAKES = [one for one in pieces.MISTAKES if one[2].__module__ in {part.__name__ for part in PARTS}]
"""This set alone."""

__all__ = ["FORMS", "KINDS", "MISTAKES"]
