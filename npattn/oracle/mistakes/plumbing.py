"""Lines of the systems here that no kernel has: they hand on options, and say which results there are."""

import re

from npattn.oracle.mistakes.mistake import Mistake

__all__ = ["is_plumbing"]

PLUMBING = re.compile(r"` for `(self\.(\w+_options|seen)\(|Pass\(|\S.*,\) \* |self\.(mask|lengths|padding)\b)")
"""What such a line's wrong reading says of the right one: options, a pass, tuples as long as there are inputs."""


def is_plumbing(mistake: Mistake) -> bool:
    """Tell whether a wrong reading of a line is one of what no kernel has.

    Examples
    --------
    >>> from npattn import ScaledDotProductAttention
    >>> from npattn.oracle.mistakes.lines import rules_of_lines
    >>> found = rules_of_lines(ScaledDotProductAttention(heads=1, head_dim=1))
    >>> any("self.attention_options" in one.name for one in found)
    True
    >>> any("self.attention_options" in one.name for one in found if not is_plumbing(one))
    False
    """
    return PLUMBING.search(mistake.name) is not None
