"""Gradient checks to the last digits: the complex step against the hand-written backward pass.

``derivations/checking_gradients.md`` derives what stands here and says what each check can and can't see.
"""

from npattn.oracle.gradcheck.checking import gradcheck
from npattn.oracle.gradcheck.point import STEP
from npattn.oracle.gradcheck.report import GradcheckReport

__all__ = ["STEP", "GradcheckReport", "gradcheck"]
