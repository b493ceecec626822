"""A second set of forms and mistakes, as kernels, whose author has not read the catalogue of mistakes.

They can be measured by themselves:

    python tests/benchmarks/diagnosis.py --foreign tests/benchmarks/foreign/fresh.py
"""

from tests.benchmarks.foreign import fresh_channel, fresh_other, fresh_self_attention, fresh_spatial, pieces
from tests.benchmarks.foreign.fresh_kinds import KINDS

PARTS = fresh_channel, fresh_spatial, fresh_self_attention, fresh_other

FORMS = {
    "se": fresh_channel.se,
    "eca": fresh_channel.eca,
    "flexible": fresh_channel.flexible,
    "cbam-channel": fresh_channel.cbam_channel,
    "cbam-spatial": fresh_spatial.cbam_spatial,
    "cbam": fresh_spatial.cbam,
    "coordinate": fresh_spatial.coordinate,
    "sliding-window": fresh_spatial.sliding_window,
    "flexible-segmentation": fresh_spatial.flexible_segmentation,
    "multi-scale": fresh_spatial.multi_scale,
    "pam": fresh_self_attention.pam,
    "cam": fresh_self_attention.cam,
    "danet": fresh_self_attention.danet,
    "mhsa": fresh_self_attention.mhsa,
    "sdpa": fresh_self_attention.sdpa,
    "gc": fresh_other.gc,
    "simam": fresh_other.simam,
    "residual": fresh_other.residual,
    "hard": fresh_other.hard,
    "soft-hard": fresh_other.soft_hard,
    "pcm": fresh_other.pcm,
}
"""The systems without a mistake, as in the package's own list."""

MISTAKES = [one for one in pieces.MISTAKES if one[2].__module__ in {part.__name__ for part in PARTS}]
"""This set alone."""

__all__ = ["FORMS", "KINDS", "MISTAKES"]
