"""What a wrong result looks like, read off its numbers: a factor, a layout, a place, another tensor of the case.

What is said is true of the numbers: each claim was checked within the budget, on every element, and says so much about
them that chance does not explain it. Where no claim holds, nothing is said.
"""

from npattn.oracle.diagnosis.order import read_order
from npattn.oracle.diagnosis.reading import read_result, reads_exactly

__all__ = ["read_order", "read_result", "reads_exactly"]
