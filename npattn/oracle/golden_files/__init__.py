"""Golden cases as files: plain arrays and a JSON header in an .npz archive, for programs in any language.

``derivations/golden_files.md`` describes the format for those who read it elsewhere. What makes a case of a file stands
in `npattn.oracle.golden_files.reading` and `validating`, above `npattn.oracle.case`; what is here stands below it.
"""

from npattn.oracle.golden_files.results import read_results
from npattn.oracle.golden_files.writing import save, write

__all__ = ["read_results", "save", "write"]
