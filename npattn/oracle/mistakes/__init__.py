"""The catalogue of mistakes that kernels are known to make, and the search for those whose results a kernel's are.

Most mistakes stand in a primitive, in forward (the value, or what it is computed from) or in backward (a gradient); the
rest concern the results of a whole pass. A faulty step takes the place of the primitive in one of its calls, so a
system's own code runs around it on any kind of number.
"""

from npattn.oracle.mistakes.catalogue import ADDED, FAULTS, HELD_OUT, MISTAKES
from npattn.oracle.mistakes.diagnosing import diagnose
from npattn.oracle.mistakes.matching import SECONDS
from npattn.oracle.mistakes.mistake import Mistake
from npattn.oracle.mistakes.planting import faulty, planted, sites
from npattn.oracle.mistakes.rules import rules_of
from npattn.oracle.mistakes.suspects import Diagnosis, Suspect

__all__ = [
    "ADDED",
    "FAULTS",
    "HELD_OUT",
    "MISTAKES",
    "SECONDS",
    "Diagnosis",
    "Mistake",
    "Suspect",
    "diagnose",
    "faulty",
    "planted",
    "rules_of",
    "sites",
]
