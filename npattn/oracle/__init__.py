"""The oracle: it tells whether a gradient is right."""

from npattn.oracle.gradcheck import GradcheckReport, gradcheck
from npattn.oracle.values import generic_values

__all__ = ["GradcheckReport", "generic_values", "gradcheck"]
