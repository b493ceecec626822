"""The oracle: it tells whether a gradient is right, and whether a kernel's results are."""

from npattn.oracle.agreement import same
from npattn.oracle.case import Case
from npattn.oracle.cases import cases
from npattn.oracle.comparison import Comparison, Judgement
from npattn.oracle.formats import FORMATS, Format
from npattn.oracle.golden import golden
from npattn.oracle.golden_files.archives import ArchiveError
from npattn.oracle.golden_files.reading import load
from npattn.oracle.gradcheck import GradcheckReport, gradcheck
from npattn.oracle.recipes import Recipe
from npattn.oracle.suites import SuiteReport, suite
from npattn.oracle.values import generic_values
from npattn.processes import worker_processes

__all__ = [
    "FORMATS",
    "ArchiveError",
    "Case",
    "Comparison",
    "Format",
    "GradcheckReport",
    "Judgement",
    "Recipe",
    "SuiteReport",
    "cases",
    "generic_values",
    "golden",
    "gradcheck",
    "load",
    "same",
    "suite",
    "worker_processes",
]
