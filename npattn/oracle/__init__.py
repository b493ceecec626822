"""The oracle: it tells whether a gradient is right, and whether a kernel's results are."""

from npattn.oracle.comparison import Comparison, Judgement
from npattn.oracle.formats import FORMATS, Format
from npattn.oracle.golden import Case, golden
from npattn.oracle.gradcheck import GradcheckReport, gradcheck
from npattn.oracle.values import generic_values

__all__ = [
    "FORMATS",
    "Case",
    "Comparison",
    "Format",
    "GradcheckReport",
    "Judgement",
    "generic_values",
    "golden",
    "gradcheck",
]
