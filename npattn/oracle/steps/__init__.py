"""Golden steps: every step of a pass judged as the results are, and where what is wrong begins.

`measuring` makes them of a case, of passes that are `recorded`. `upstream` tells which steps can have spoilt results,
by what `flowing` arrays are made from; `beginning`, which step is the first that is off, or what else is known of it.
"""

from npattn.oracle.steps.beginning import first_wrong, in_order, is_backward, where_it_begins
from npattn.oracle.steps.measuring import GoldenStep, first_steps, measure_steps, reader_of, steps_meant, with_steps
from npattn.oracle.steps.recorded import Recorded, looks_like_step
from npattn.oracle.steps.upstream import feeds_of

__all__ = [
    "GoldenStep",
    "Recorded",
    "feeds_of",
    "first_steps",
    "first_wrong",
    "in_order",
    "is_backward",
    "looks_like_step",
    "measure_steps",
    "reader_of",
    "steps_meant",
    "where_it_begins",
    "with_steps",
]
