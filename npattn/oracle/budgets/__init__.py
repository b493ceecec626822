"""Error budgets: how far each result of a correct kernel may lie from the exact one.

``derivations/error_budgets.md`` derives what stands here.
"""

from npattn.oracle.budgets.limits import Budget, limits_of, rms_limit, worst_limit, zeros_pass
from npattn.oracle.budgets.measuring import measure_budgets
from npattn.oracle.budgets.near_ties import Observed, observe
from npattn.oracle.budgets.overflowing import measure_in_range_of_float32
from npattn.oracle.budgets.passes import Given, exact_results, named_results, run_on
from npattn.oracle.budgets.saturating import measure_unsaturated
from npattn.oracle.budgets.shrinkage import shrink_variances

__all__ = [
    "Budget",
    "Given",
    "Observed",
    "exact_results",
    "limits_of",
    "measure_budgets",
    "measure_in_range_of_float32",
    "measure_unsaturated",
    "named_results",
    "observe",
    "rms_limit",
    "run_on",
    "shrink_variances",
    "worst_limit",
    "zeros_pass",
]
